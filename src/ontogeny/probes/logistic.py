"""Logistic regression, binary or softmax, on standardised activations, with the L2 strength chosen by group folds.

Minimises ½‖w‖² + C Σ loss as scikit-learn does. All sites, strengths and folds are solved as one batch in the principal axes
(`linalg.principal_axes`, `linalg.logistic_solver`); the folds share the standardisation, which uses no label. The strength with the
lowest out-of-fold cross-entropy is chosen; `cv_score` is its out-of-fold AUROC. Directions are in raw activation space.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.logistic_solver import cross_entropy_loss, is_factorable, linear_scores, solve_logistic
from ontogeny.linalg.principal_axes import PrincipalAxes, StandardisedFeatures
from ontogeny.metrics.separability import auroc
from ontogeny.probes import Probe, check_activations, class_indicators
from ontogeny.statistics.splits import balanced_folds

targets = frozenset({"binary", "classes"})
needs_pairs = False
recovers = "readout"
recovers_from = "labels"

SHARES = (1e-1, 1e-2, 1e-3, 1e-4)
"""Strengths tried: a principal component with this share of the variance is shrunk to half (C = 4 / (example · d · share))."""
FOLDS = 3
_ROUGH_TOLERANCE, _TIGHT_TOLERANCE = 1e-2, 1e-5
"""Relative gradient for the choice of the strength, and for the final fit."""


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
    features = _with_constant(basis.features)
    grid = 4 / (x.shape[1] * x.shape[2] * x.new_tensor(SHARES))

    inner = list(_inner_folds(target, groups, seed))
    masks = torch.stack([torch.ones_like(target[:, 0]), *inner], 1)
    weight = masks.repeat_interleave(len(grid), 1)
    theta = solve_logistic(
        features, *_columns(target, weight), grid.repeat(masks.shape[1]).expand(len(x), -1), tolerance=_ROUGH_TOLERANCE
    )
    theta = theta.reshape(*theta.shape[:2], masks.shape[1], len(grid), -1)
    choice, cv_loss, cv_score = _choose(features, target, inner, theta[:, :, 1:])

    site = torch.arange(len(x), device=x.device)
    strength = grid[choice]
    start = theta[site, :, 0, choice][:, :, None].double()
    final = solve_logistic(
        features.double(),
        *_columns(target.double(), masks[:, :1].double()),
        strength[:, None].double(),
        start,
        tolerance=_TIGHT_TOLERANCE,
    )[:, :, 0]
    direction, bias = basis.to_raw(final[:, :-1], final[:, -1])
    return Probe(direction, bias, {"strength": strength, "cv_score": cv_score, "cv_loss": cv_loss})


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


def _choose(features: Tensor, target: Tensor, inner: list[Tensor], theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Index of the best strength at each site, with its out-of-fold loss and AUROC."""
    sites, strengths = len(features), theta.shape[3]
    if not inner:
        # No valid folds (one group, or a class within one group): the middle strength, without a score.
        unknown = features.new_full((sites,), torch.nan)
        return torch.full((sites,), strengths // 2, device=features.device), unknown, unknown
    u = [linear_scores(features[:, mask == 0], theta[:, :, f]) for f, mask in enumerate(inner)]
    held = [target[mask == 0] for mask in inner]
    each = torch.cat([cross_entropy_loss(a, b[:, None].expand_as(a)) for a, b in zip(u, held, strict=True)], 1).mean(1)
    best = each.argmin(1)
    site = torch.arange(sites, device=features.device)
    areas = []
    for k in range(target.shape[1]):
        # Scores of different folds have different scales: average the AUROC of each fold, weighted by its pairs.
        pairs = torch.stack([b[:, k].sum() * (1 - b[:, k]).sum() for b in held])
        area = torch.stack([auroc(a[site, :, best, k], b[:, k] > 0) for a, b in zip(u, held, strict=True)])
        areas.append((area.nan_to_num() * pairs[:, None]).sum(0) / pairs.sum())
    return best, each[site, best], torch.stack(areas).mean(0)
