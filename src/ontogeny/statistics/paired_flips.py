"""Paired flips: how often a prediction differs between a text and its perturbed copy, and how much accuracy drops."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ontogeny.statistics.bootstrap import Interval, group_weights, mean_samples, percentile_interval, share_interval


@dataclass(frozen=True, eq=False)
class FlipRates:
    """Flip rate and accuracy drop of each site, with intervals over pairs."""

    rate: Float[Tensor, " site"]
    """Share of pairs with different predictions."""
    rate_interval: Interval
    drop: Float[Tensor, " site"]
    """Accuracy on clean texts minus accuracy on perturbed ones."""
    drop_interval: Interval


def pair_indices(groups: Int[Tensor, " example"]) -> Int[Tensor, "pair 2"]:
    """The examples of each group of two, the clean one first; other groups are left out."""
    where: dict[int, list[int]] = {}
    for i, group in enumerate(groups.tolist()):
        where.setdefault(group, []).append(i)
    return torch.tensor([both for both in where.values() if len(both) == 2], dtype=torch.long).reshape(-1, 2)


def flip_rates(
    predicted: Shaped[Tensor, "site example"],
    target: Shaped[Tensor, " example"],
    pairs: Int[Tensor, "pair 2"],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> FlipRates:
    """Flip rate and accuracy drop of each site's predictions, over at least two pairs."""
    clean, perturbed = predicted[:, pairs[:, 0]], predicted[:, pairs[:, 1]]
    flipped = (clean != perturbed).float()
    drop = (clean == target[pairs[:, 0]]).float() - (perturbed == target[pairs[:, 1]]).float()
    weights, n = group_weights(torch.arange(len(pairs)), samples=samples, seed=seed), len(pairs)
    rate_interval = share_interval(flipped.mean(1), mean_samples(flipped, weights), groups=n)
    drop_interval = percentile_interval(drop.mean(1), mean_samples(drop, weights), groups=n)
    return FlipRates(flipped.mean(1), rate_interval, drop.mean(1), drop_interval)
