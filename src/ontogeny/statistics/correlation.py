"""Pearson's and Spearman's correlation of many pairs of samples at once; cells that one of them lacks are left out."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.statistics.permutation import average_ranks

_ROUNDING_TOLERANCE = 1e-12
"""Spread of a constant sample that is a rounding error, relative to its values."""


def pearson_correlation(a: Float[Tensor, "*sample cell"], b: Float[Tensor, "*sample cell"]) -> Float[Tensor, "*sample"]:
    """Pearson's r over the cells that both have; NaN if one is constant."""
    both = ~(a.isnan() | b.isnan())
    n = both.sum(-1, keepdim=True)
    (x, x_varies), (y, y_varies) = (_standardised(values, both, n) for values in (a, b))
    return torch.where(x_varies & y_varies, (x * y).sum(-1).clamp(-1, 1), torch.nan)


def _standardised(
    values: Float[Tensor, "*sample cell"], both: Bool[Tensor, "*sample cell"], n: Int[Tensor, "*sample 1"]
) -> tuple[Float[Tensor, "*sample cell"], Bool[Tensor, "*sample"]]:
    """Deviations from the mean, of norm 1, and whether they are more than a rounding error."""
    wide = torch.where(both, values.double(), 0.0)
    # Scaled first, so that the squares of very small or large values stay in range.
    wide = wide / wide.abs().amax(-1, keepdim=True)
    centred = torch.where(both, wide - wide.sum(-1, keepdim=True) / n, 0.0)
    norm = centred.norm(dim=-1)
    return centred / norm[..., None], norm > _ROUNDING_TOLERANCE * n[..., 0].sqrt()


def spearman_correlation(
    a: Float[Tensor, "*sample cell"], b: Float[Tensor, "*sample cell"]
) -> Float[Tensor, "*sample"]:
    """Pearson's r of the ranks over the cells that both have; NaN if one is constant."""
    missing = a.isnan() | b.isnan()
    # Missing cells are last in the order, so that they do not shift the ranks of the others.
    ranks = (average_ranks(x.masked_fill(missing, torch.nan)).masked_fill(missing, torch.nan) for x in (a, b))
    return pearson_correlation(*ranks)
