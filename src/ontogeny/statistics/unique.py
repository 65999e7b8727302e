"""Distinct values of a tensor, and the index of each entry among them."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


def unique_values(x: Shaped[Tensor, " entry"]) -> Shaped[Tensor, " value"]:
    """Distinct values, ascending."""
    ordered = x.sort().values
    first = torch.ones(len(x), dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def unique_inverse(x: Shaped[Tensor, " entry"]) -> tuple[int, Int[Tensor, " entry"]]:
    """Number of distinct values, and the index of each entry among them."""
    values = unique_values(x)
    if x.dtype == torch.bool:  # searchsorted does not take booleans
        values, x = values.byte(), x.byte()
    return len(values), torch.searchsorted(values, x.contiguous())
