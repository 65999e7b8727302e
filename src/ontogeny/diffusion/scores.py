"""Scores of predicted masks and depths, one per image."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.statistics.correlation import spearman_correlation

_LEVELS = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
"""Quantiles that are tried as thresholds."""


def dice(a: Bool[Tensor, "image side side"], b: Bool[Tensor, "image side side"]) -> Float[Tensor, " image"]:
    """2 |A ∩ B| / (|A| + |B|), from 0 to 1; NaN where both masks are empty (Dice 1945)."""
    both, sizes = (a & b).sum((1, 2)).float(), (a.sum((1, 2)) + b.sum((1, 2))).float()
    return torch.where(sizes > 0, 2 * both / sizes.clamp(min=1), torch.nan)


def best_threshold(values: Float[Tensor, "image side side"], masks: Bool[Tensor, "image side side"]) -> float:
    """The value above which a pixel is part of the mask, so that Dice over all pixels is largest; half is too high for a rare mask.

    Choose it on the images that the probe was fitted on.
    """
    levels = torch.quantile(values.flatten().double()[:: max(1, values.numel() // 100_000)], _LEVELS)
    above = (values[None].double() > levels[:, None, None, None]).flatten(1)
    truth = masks.flatten()
    scores = 2 * (above & truth).sum(1) / (above.sum(1) + truth.sum()).clamp(min=1)
    return float(levels[scores.argmax()])


def depth_error(
    predicted: Float[Tensor, "image side side"], depth: Float[Tensor, "image side side"]
) -> Float[Tensor, " image"]:
    """Root of the mean squared error over an image's pixels."""
    return (predicted - depth).square().mean((1, 2)).sqrt()


def pixel_rank_correlation(
    a: Float[Tensor, "image side side"], b: Float[Tensor, "image side side"]
) -> Float[Tensor, " image"]:
    """Spearman's correlation over the pixels of each image; NaN where one of them is constant."""
    return spearman_correlation(a.flatten(1), b.flatten(1))
