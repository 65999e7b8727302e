"""Scores of predicted masks and depths, one per image."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.statistics.permutation import average_ranks


def dice(a: Bool[Tensor, "image side side"], b: Bool[Tensor, "image side side"]) -> Float[Tensor, " image"]:
    """2 |A ∩ B| / (|A| + |B|), from 0 to 1; NaN where both masks are empty (Dice 1945)."""
    both, sizes = (a & b).sum((1, 2)).float(), (a.sum((1, 2)) + b.sum((1, 2))).float()
    return torch.where(sizes > 0, 2 * both / sizes.clamp(min=1), torch.nan)


def depth_error(
    predicted: Float[Tensor, "image side side"], depth: Float[Tensor, "image side side"]
) -> Float[Tensor, " image"]:
    """Root of the mean squared error over an image's pixels."""
    return (predicted - depth).square().mean((1, 2)).sqrt()


def rank_correlation(
    a: Float[Tensor, "image side side"], b: Float[Tensor, "image side side"]
) -> Float[Tensor, " image"]:
    """Spearman's correlation over the pixels of each image; NaN where one of them is constant."""
    x, y = (average_ranks(values.flatten(1).double()) for values in (a, b))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    scale = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(scale > 0, (x * y).sum(1) / scale.clamp(min=1e-12), torch.nan)
