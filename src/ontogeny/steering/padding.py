"""Padding of prompts on the left, so that their last tokens are in one column."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


def pad_left(
    rows: Sequence[Int[Tensor, " token"]], padding: int
) -> tuple[Int[Tensor, "row token"], Int[Tensor, "row token"]]:
    """Rows padded on the left, and their attention mask."""
    ids = torch.full((len(rows), max(map(len, rows))), padding)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        start = ids.shape[1] - len(row)
        ids[i, start:], mask[i, start:] = row, 1
    return ids, mask
