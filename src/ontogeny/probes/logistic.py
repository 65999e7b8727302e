"""Logistic regression, binary or softmax, on standardised activations, with the L2 strength chosen by group folds.

Minimises ½‖w‖² + C Σ loss as scikit-learn does. All sites, strengths and folds are solved as one batch in the principal axes
(`linalg.principal_axes`, `linalg.logistic_solver`); the folds share the standardisation, which uses no label. The strength with the
lowest out-of-fold cross-entropy is chosen; `cv_score` is its out-of-fold AUROC. Directions are in raw activation space.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.logistic_solver import cross_entropy_loss, is_factorable, linear_scores, solve_logistic
from ontogeny.linalg.principal_axes import PrincipalAxes, StandardisedFeatures
from ontogeny.metrics.separability import auroc
from ontogeny.probes import FoldProbes, Probe, check_activations, class_indicators, training_masks
from ontogeny.statistics.splits import balanced_folds

targets = frozenset({"binary", "classes"})
needs_pairs = False
recovers = "readout"
recovers_from = "labels"

SHARES = (1e-1, 1e-2, 1e-3, 1e-4)
"""Strengths tried: a principal component with this share of the variance is shrunk to half (C = 4 / (example · d · share))."""
FOLDS = 3
_ROUGH_TOLERANCE, _SCORE_TOLERANCE, _TIGHT_TOLERANCE = 1e-2, 1e-4, 1e-5
"""Relative gradient for the choice of the strength, for the fits of the folds, and for the final fit."""


def fit(
    x: Float[Tensor, "site example d"],
    y: Tensor,
    *,
    groups: Int[Tensor, " example"],
    pairs: Int[Tensor, " example"] | None = None,
    seed: int = 0,
    basis: PrincipalAxes | None = None,
) -> Probe:
    """One probe per site; facts: `strength` (scikit-learn's C on standardised features), `cv_score`, `cv_loss` (nats).

    `basis` is `PrincipalAxes.of(x)`, if known.
    """
    x = check_activations("logistic", x, y)
    target = class_indicators("logistic", y).to(x)
    basis = basis or PrincipalAxes.of(x)
    search = _search(x, target, basis, list(_inner_folds(target, groups, seed)))
    final = search.solve(search.choice[:, None], [0])[:, :, 0]
    direction, bias = basis.to_raw(final[:, :-1], final[:, -1])
    return Probe(
        direction, bias, search.facts(search.solve_folds(search.choice[:, None].expand(-1, len(search.masks) - 1)))
    )


def fit_folds(
    x: Float[Tensor, "site example d"],
    y: Tensor,
    folds: Int[Tensor, " example"],
    *,
    groups: Int[Tensor, " example"],
    pairs: Int[Tensor, " example"] | None = None,
    seed: int = 0,
    basis: PrincipalAxes | None = None,
) -> FoldProbes:
    """The probe of all examples and that of each fold; the strength of a fold is chosen by the losses in the other folds.

    The folds share the standardisation, which uses no label, and the search for the strength.
    """
    x = check_activations("logistic", x, y)
    target = class_indicators("logistic", y).to(x)
    basis = basis or PrincipalAxes.of(x)
    search = _search(x, target, basis, [mask.to(x) for mask in training_masks(folds)])
    count = len(search.masks) - 1
    total = search.losses.sum(2, keepdim=True) - search.losses
    choice = torch.cat([search.choice[:, None], total.argmin(1)], 1)
    final = search.solve(choice[:, :1], [0])[:, :, 0]
    solved = search.solve_folds(choice[:, 1:])
    direction, bias = basis.to_raw(final[:, :-1], final[:, -1])
    own, own_bias = basis.to_raw(solved[:, :-1].flatten(2), solved[:, -1].flatten(1))
    shape = count, solved.shape[3]
    probe = Probe(direction, bias, search.facts(solved))
    return FoldProbes(probe, own.reshape(*own.shape[:2], *shape), own_bias.reshape(len(x), *shape))


@dataclass(frozen=True, eq=False)
class _Search:
    """Rough fits of every strength on all examples and on each inner fold, and the losses of the folds' held-out examples."""

    features: Float[Tensor, "site example r"]
    target: Float[Tensor, "example k"]
    masks: Float[Tensor, "fit example"]
    """Training examples of each fit; the first holds all."""
    grid: Float[Tensor, " strength"]
    theta: Float[Tensor, "site r fit strength k"]
    losses: Float[Tensor, "site strength fold"]
    """Sum over the held-out examples."""

    @property
    def choice(self) -> Int[Tensor, " site"]:
        """Index of the best strength; the middle one without folds (one group, or a class within one group)."""
        if not self.losses.shape[2]:
            return torch.full((len(self.features),), len(self.grid) // 2, device=self.features.device)
        return self.losses.sum(2).argmin(1)

    def solve(self, choice: Int[Tensor, "site fit"], fits: list[int]) -> Float[Tensor, "site r fit k"]:
        """Exact fits at the chosen strengths, from the rough ones."""
        site = torch.arange(len(self.features), device=self.features.device)[:, None]
        start = self.theta[site, :, torch.tensor(fits, dtype=torch.int64, device=site.device), choice].movedim(1, 2)
        columns = _columns(self.target, self.masks[fits].T)
        return solve_logistic(self.features, *columns, self.grid[choice], start, tolerance=_TIGHT_TOLERANCE)

    def solve_folds(self, choice: Int[Tensor, "site fold"]) -> Float[Tensor, "site r fold k"]:
        """Fits of the folds at the chosen strengths, exact enough for their scores."""
        fits = torch.arange(1, len(self.masks), device=self.features.device)
        site = torch.arange(len(self.features), device=self.features.device)[:, None]
        start = self.theta[site, :, fits, choice].movedim(1, 2).contiguous()
        if not len(fits):
            return start
        columns = _columns(self.target, self.masks[fits].T)
        return solve_logistic(self.features, *columns, self.grid[choice], start, tolerance=_SCORE_TOLERANCE)

    def facts(self, theta: Float[Tensor, "site r fold k"]) -> dict[str, Float[Tensor, " site"]]:
        """Strength, out-of-fold AUROC of these fits, and out-of-fold loss of the search."""
        choice = self.choice
        unknown = self.features.new_full((len(self.features),), torch.nan)
        if not self.losses.shape[2]:
            return {"strength": self.grid[choice], "cv_score": unknown, "cv_loss": unknown}
        site = torch.arange(len(self.features), device=choice.device)
        count = sum(float((1 - mask).sum()) for mask in self.masks[1:])
        areas = []
        for k in range(self.target.shape[1]):
            # Scores of different folds have different scales: average the AUROC of each fold, weighted by its pairs.
            area, weight = unknown.new_zeros(len(unknown)), 0.0
            for fold, mask in enumerate(self.masks[1:]):
                out = mask == 0
                held = self.target[out, k]
                pairs = float(held.sum() * (1 - held).sum())
                u = linear_scores(self.features[:, out], theta[:, :, fold : fold + 1, k : k + 1])[..., 0, 0]
                area, weight = area + auroc(u, held > 0).nan_to_num() * pairs, weight + pairs
            areas.append(area / weight if weight else unknown)
        loss = self.losses.sum(2)[site, choice] / count
        return {"strength": self.grid[choice], "cv_score": torch.stack(areas).mean(0), "cv_loss": loss}


def _search(x: Tensor, target: Tensor, basis: PrincipalAxes, inner: list[Tensor]) -> _Search:
    features = _with_constant(basis.features)
    grid = 4 / (x.shape[1] * x.shape[2] * x.new_tensor(SHARES))
    masks = torch.stack([torch.ones_like(target[:, 0]), *inner])
    weight = masks.T.repeat_interleave(len(grid), 1)
    theta = solve_logistic(
        features, *_columns(target, weight), grid.repeat(len(masks)).expand(len(x), -1), tolerance=_ROUGH_TOLERANCE
    )
    theta = theta.reshape(*theta.shape[:2], len(masks), len(grid), -1)
    losses = [features.new_empty(len(x), len(grid), 0)]
    for f, mask in enumerate(inner):
        u = linear_scores(features[:, mask == 0], theta[:, :, f + 1])
        held = target[mask == 0][:, None].expand_as(u)
        losses.append(cross_entropy_loss(u, held).sum(1)[..., None])
    return _Search(features, target, masks, grid, theta, torch.cat(losses, 2))


def refit(
    x: Float[Tensor, "site example d"],
    y: Bool[Tensor, "label example"],
    strength: Float[Tensor, " site"],
    *,
    weight: Float[Tensor, "label example"] | None = None,
    tolerance: float = 1e-3,
    standardise: bool = True,
) -> Probe:
    """One probe per site and label set at given strengths, for control tasks, permutations and bootstraps.

    Column k of the result is label set k, NaN if it has one class only. `weight` is the weight of each example.
    """
    x = check_activations("logistic", x, y[0])
    if len(y) == 1 and x.shape[1] >= x.shape[2]:
        # For a single label set, a Cholesky factor takes half the time of principal axes.
        given = StandardisedFeatures.of(x, standardise=standardise)
        if is_factorable(given.features, strength):
            return refit_prepared(given, y, strength, weight=weight, tolerance=tolerance)
    basis = PrincipalAxes.of(x, standardise=standardise)
    return refit_prepared(basis, y, strength, weight=weight, tolerance=tolerance)


def refit_prepared(
    given: PrincipalAxes | StandardisedFeatures,
    y: Bool[Tensor, "label example"],
    strength: Float[Tensor, " site"],
    *,
    weight: Float[Tensor, "label example"] | None = None,
    tolerance: float = 1e-3,
) -> Probe:
    """`refit` on prepared activations."""
    if weight is not None and weight.shape != y.shape:
        raise BadInput(
            f"`weight` must have the shape of the labels, {tuple(y.shape)}, got {tuple(weight.shape)}: give one weight per label."
        )
    features = _with_constant(given.features)
    omega = torch.ones_like(y, dtype=features.dtype) if weight is None else weight.to(features)
    strengths = strength.to(features)[:, None]
    parts = [
        solve_logistic(
            features,
            some.T[..., None].to(features),
            w.T,
            strengths.expand(-1, len(some)),
            tolerance=tolerance,
            factored=isinstance(given, StandardisedFeatures),
        )
        for some, w in zip(torch.split(y, 64), torch.split(omega, 64), strict=True)
    ]
    theta = torch.cat(parts, 2)[..., 0]
    direction, bias = given.to_raw(theta[:, :-1], theta[:, -1])
    one_class = ((omega * y).sum(1) == 0) | ((omega * ~y).sum(1) == 0)
    return Probe(
        direction.masked_fill(one_class, torch.nan), bias.masked_fill(one_class, torch.nan), {"strength": strength}
    )


def _with_constant(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[..., :1])], -1)


def _columns(target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return target[:, None].expand(-1, weight.shape[1], -1), weight


def _inner_folds(target: Tensor, groups: Tensor, seed: int) -> Iterator[Tensor]:
    """Training mask of each fold whose training rows contain every class."""
    label = target[:, 0] if target.shape[1] == 1 else target.argmax(1).to(target)
    fold, count = balanced_folds(groups, label, folds=FOLDS, seed=seed)
    for f in range(count if count > 1 else 0):
        mask = (fold != f).to(target)
        inside = mask @ target
        if (inside > 0).all() and (target.shape[1] > 1 or inside[0] < mask.sum()):
            yield mask
