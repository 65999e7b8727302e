"""Ridge regression of a number on standardised activations, with the strength chosen by exact group-fold cross-validation.

The out-of-fold residuals of fold F are (I − H_FF)⁻¹ (y − ŷ)_F with the hat matrix H, so no fold is refitted.
Source: Golub, Heath & Wahba 1979 (leave-one-out); the block form follows from the Woodbury identity.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.linalg.principal_axes import PrincipalAxes
from ontogeny.probes import FoldProbes, Probe, check_activations, number_target
from ontogeny.statistics.splits import balanced_folds

targets = frozenset({"number"})
needs_pairs = False
recovers = "readout"
recovers_from = "labels"

SHARES = tuple(10.0**-e for e in range(7))
"""Strengths tried: a principal component with this share of the variance is shrunk to half (α = example · d · share)."""
FOLDS = 5


def fit(
    x: Float[Tensor, "site example d"],
    y: Tensor,
    *,
    groups: Int[Tensor, " example"],
    pairs: Int[Tensor, " example"] | None = None,
    seed: int = 0,
    basis: PrincipalAxes | None = None,
) -> Probe:
    """One regression per site; facts: `strength` (scikit-learn's alpha on standardised features), `cv_score` (out-of-fold R²).

    `basis` is `PrincipalAxes.of(x)`, if known.
    """
    x = check_activations("ridge", x, y)
    fold, count = balanced_folds(groups, number_target("ridge", y).double(), folds=FOLDS, seed=seed)
    return _fit(x, y, fold, count, basis or PrincipalAxes.of(x))[0]


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
    """The probe of all examples and that of each fold; the strength of a fold is chosen by the errors in the other folds.

    The folds share the standardisation, which uses no target.
    """
    x = check_activations("ridge", x, y)
    basis = basis or PrincipalAxes.of(x)
    count = int(folds.max()) + 1
    probe, press, grid = _fit(x, y, folds, count, basis)
    target, features = y.double(), basis.features.double()
    directions, biases = [], []
    for fold in range(count):
        inside = folds != fold
        own = grid[press[:, :, torch.arange(count, device=y.device) != fold].sum(2).argmin(1)]
        rows = features[:, inside]
        mean, centre = rows.mean(1, keepdim=True), target[inside].mean()
        weights = _solve_ridge(rows - mean, target[inside] - centre, own)
        direction, bias = basis.to_raw(weights[..., None], centre - (mean[:, 0] * weights).sum(1, keepdim=True))
        directions.append(direction)
        biases.append(bias)
    return FoldProbes(probe, torch.stack(directions, 2), torch.stack(biases, 1))


def _solve_ridge(
    rows: Float[Tensor, "site row r"], target: Float[Tensor, " row"], strength: Float[Tensor, " site"]
) -> Float[Tensor, "site r"]:
    short = rows if rows.shape[1] < rows.shape[2] else rows.mT
    shifted = short @ short.mT
    shifted.diagonal(dim1=1, dim2=2).add_(strength[:, None])
    factor = torch.linalg.cholesky(shifted)
    if short is rows:
        return (rows.mT @ torch.cholesky_solve(target[:, None].expand(len(rows), -1, 1), factor))[..., 0]
    return torch.cholesky_solve((rows.mT @ target)[..., None], factor)[..., 0]


def _fit(
    x: Tensor, y: Tensor, fold: Tensor, count: int, basis: PrincipalAxes
) -> tuple[Probe, Float[Tensor, "site strength fold"], Float[Tensor, " strength"]]:
    """The probe, the squared out-of-fold errors of each strength, and the strengths."""
    target = number_target("ridge", y).double()
    features, power = basis.features.double(), basis.squared_norms.double()
    grid = x.shape[1] * x.shape[2] * torch.tensor(SHARES, dtype=torch.float64, device=x.device)
    # [site, strength, r]: shrinkage of each principal component.
    shrinkage = 1 / (power[:, None] + grid[:, None])
    centred = target - target.mean()
    projected = (features.mT @ centred)[:, None] * shrinkage
    residual = centred - projected @ features.mT

    site = torch.arange(len(x), device=x.device)
    if count < 2:
        best, score = torch.full_like(site, len(grid) // 2), x.new_full((len(x),), torch.nan)
        errors = [features.new_zeros(len(x), len(grid))]
    else:
        errors = [
            _held_out_error(features[:, fold == f], shrinkage, residual[:, :, fold == f], len(y)) for f in range(count)
        ]
        press = sum(errors[1:], errors[0])
        best = press.argmin(1)
        score = (1 - press[site, best] / centred.square().sum()).to(x)
    w = projected[site, best]
    direction, bias = basis.to_raw(w[..., None], target.mean().expand(len(x), 1))
    probe = Probe(direction, bias, {"strength": grid[best].to(x), "cv_score": score})
    return probe, torch.stack(errors, 2), grid


def _held_out_error(
    features: Float[Tensor, "site held r"],
    shrinkage: Float[Tensor, "site strength r"],
    residual: Float[Tensor, "site strength held"],
    n: int,
) -> Float[Tensor, "site strength"]:
    """Sum of squared out-of-fold residuals."""
    intercept = features.new_full((*features.shape[:2], 1), n**-0.5)
    errors = []
    for s in range(shrinkage.shape[1]):
        scaled = torch.cat([features * shrinkage[:, s, None].sqrt(), intercept], 2)
        errors.append(_solve(scaled, residual[:, s]).square().sum(1))
    return torch.stack(errors, 1)


def _solve(g: Float[Tensor, "site held r"], b: Float[Tensor, "site held"]) -> Float[Tensor, "site held"]:
    """(I − GGᵀ)⁻¹ b, by the shorter side of G."""
    short = g if g.shape[1] <= g.shape[2] else g.mT
    factor = torch.linalg.cholesky(torch.eye(short.shape[1], dtype=g.dtype, device=g.device) - short @ short.mT)
    if short is g:
        return torch.cholesky_solve(b[..., None], factor)[..., 0]
    return b + (g @ torch.cholesky_solve(g.mT @ b[..., None], factor))[..., 0]
