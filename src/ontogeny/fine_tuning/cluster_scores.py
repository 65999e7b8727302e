"""Cluster scores: how much nearer an activation lies to the centre of one class than to that of the other (arXiv:2407.10264)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def cluster_scores(
    x: Float[Tensor, "site example d"], positive: Bool[Tensor, " example"], fold: Int[Tensor, " example"]
) -> Float[Tensor, "site example"]:
    """τ = (‖a − μ₀‖ − ‖a − μ₁‖) / ‖μ₁ − μ₀‖ of each example, with the centres of the examples outside its fold.

    1 at the centre of the positive class, −1 at that of the other, and never beyond (triangle inequality). NaN where the centres coincide.

    Args:
        fold: No group may be in two folds, so that no example is compared with itself.
    """
    scores = torch.full(x.shape[:2], torch.nan, dtype=torch.float64)
    for number in range(int(fold.max()) + 1):
        own = (fold == number).nonzero()[:, 0]
        rest = fold != number
        centres = [x[:, rest & side].double().mean(1, keepdim=True) for side in (~positive, positive)]
        scores[:, own] = score_between(x[:, own].double(), *centres).cpu()
    return scores


def score_between(
    a: Float[Tensor, "*site example d"], negative: Float[Tensor, "*site 1 d"], positive: Float[Tensor, "*site 1 d"]
) -> Float[Tensor, "*site example"]:
    """τ of activations between two given centres."""
    distance = (positive - negative).norm(dim=-1)
    score: Tensor = ((a - negative).norm(dim=-1) - (a - positive).norm(dim=-1)) / distance
    return score.where(distance > 0, torch.nan)
