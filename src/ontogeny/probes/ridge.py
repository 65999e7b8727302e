"""Ridge regression of a number on standardised activations, with the strength chosen by exact group-fold cross-validation.

The out-of-fold residuals of fold F are (I − H_FF)⁻¹ (y − ŷ)_F with the hat matrix H, so no fold is refitted.
Source: Golub, Heath & Wahba 1979 (leave-one-out); the block form follows from the Woodbury identity.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.linalg.principal_axes import PrincipalAxes
from ontogeny.probes import Probe, check_activations, number_target
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
    target = number_target("ridge", y).double()
    basis = basis or PrincipalAxes.of(x)
    features, power = basis.features.double(), basis.squared_norms.double()
    grid = x.shape[1] * x.shape[2] * torch.tensor(SHARES, dtype=torch.float64, device=x.device)
    # [site, strength, r]: shrinkage of each principal component.
    shrinkage = 1 / (power[:, None] + grid[:, None])
    centred = target - target.mean()
    projected = (features.mT @ centred)[:, None] * shrinkage
    residual = centred - projected @ features.mT

    fold, count = balanced_folds(groups, target, folds=FOLDS, seed=seed)
    site = torch.arange(len(x), device=x.device)
    if count < 2:
        best, score = torch.full_like(site, len(grid) // 2), x.new_full((len(x),), torch.nan)
    else:
        press = sum(
            _held_out_error(features[:, fold == f], shrinkage, residual[:, :, fold == f], len(y)) for f in range(count)
        )
        assert isinstance(press, Tensor)
        best = press.argmin(1)
        score = (1 - press[site, best] / centred.square().sum()).to(x)
    w = projected[site, best]
    direction, bias = basis.to_raw(w[..., None], target.mean().expand(len(x), 1))
    return Probe(direction, bias, {"strength": grid[best].to(x), "cv_score": score})


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
