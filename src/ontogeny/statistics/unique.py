"""Distinct values of a tensor, and which of them each entry is."""

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
    """How many distinct values there are, and the number of each entry's value among them."""
    values = unique_values(x)
    if x.dtype == torch.bool:  # torch does not search among truth values
        values, x = values.byte(), x.byte()
    return len(values), torch.searchsorted(values, x.contiguous())
