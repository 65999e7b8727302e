"""Pearson's and Spearman's correlation of many pairs of samples at once; cells that one of them lacks are left out."""

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.statistics.permutation import average_ranks

_ROUNDING_TOLERANCE = 1e-9


def pearson_correlation(a: Float[Tensor, "*sample cell"], b: Float[Tensor, "*sample cell"]) -> Float[Tensor, "*sample"]:
    """Pearson's r over the cells that both have; NaN if one is constant."""
    both = ~(a.isnan() | b.isnan())
    n = both.sum(-1, keepdim=True)
    a, b = (torch.where(both, x.double(), 0.0) for x in (a, b))
    a, b = (torch.where(both, x - x.sum(-1, keepdim=True) / n, 0.0) for x in (a, b))
    scale = a.norm(dim=-1) * b.norm(dim=-1)
    return torch.where(scale > _ROUNDING_TOLERANCE, (a * b).sum(-1) / scale, torch.nan)


def spearman_correlation(
    a: Float[Tensor, "*sample cell"], b: Float[Tensor, "*sample cell"]
) -> Float[Tensor, "*sample"]:
    """Pearson's r of the ranks, without NaN cells."""
    return pearson_correlation(average_ranks(a), average_ranks(b))
