"""Folds inside the training rows: whole groups, about equal in size and in class balance, whatever the order of the rows."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def fold_of(
    groups: Int[Tensor, " example"], y: Float[Tensor, " example"], *, folds: int, seed: int
) -> tuple[Int[Tensor, " example"], int]:
    """Fold of each example, and how many folds there are: fewer than asked for where there are fewer groups."""
    names, inverse = torch.unique(groups, return_inverse=True)
    count = len(names)
    size = y.new_zeros(count).index_add_(0, inverse, torch.ones_like(y))
    mean = y.new_zeros(count).index_add_(0, inverse, y) / size
    # Sorted by target, then size, ties by chance: dealing them out in turn gives every fold its share of each.
    chance = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(y.device)
    order = chance[_stable(size[chance])]
    order = order[_stable(mean[order])]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(count, device=y.device)
    used = min(folds, count)
    return (rank % used)[inverse], used


def _stable(key: Tensor) -> Tensor:
    return key.argsort(descending=True, stable=True)
