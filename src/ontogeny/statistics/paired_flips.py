"""Twins: a text and the same text perturbed. How often does a reading change from one to the other, and how much worse is it there?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ontogeny.statistics.bootstrap import Interval, group_weights, mean_samples, percentile_interval, share_interval


@dataclass(frozen=True, eq=False)
class FlipRates:
    """One number a site, with its interval over twins."""

    rate: Float[Tensor, " site"]
    """Share of twins that are read differently."""
    rate_ends: Interval
    drop: Float[Tensor, " site"]
    """Accuracy on the clean ones less that on the perturbed."""
    drop_ends: Interval


def pair_indices(groups: Int[Tensor, " example"]) -> Int[Tensor, "couple 2"]:
    """The two examples of each group that holds just two, the clean one first; other groups are left out."""
    where: dict[int, list[int]] = {}
    for i, group in enumerate(groups.tolist()):
        where.setdefault(group, []).append(i)
    return torch.tensor([both for both in where.values() if len(both) == 2], dtype=torch.long).reshape(-1, 2)


def flip_rates(
    predicted: Shaped[Tensor, "site example"],
    target: Shaped[Tensor, " example"],
    couples: Int[Tensor, "couple 2"],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> FlipRates:
    """Rate and drop of each site's predictions, over at least two couples."""
    clean, perturbed = predicted[:, couples[:, 0]], predicted[:, couples[:, 1]]
    right, same = target[couples[:, 0]], target[couples[:, 1]]
    flipped = (clean != perturbed).float()
    drop = (clean == right).float() - (perturbed == same).float()
    weights = group_weights(torch.arange(len(couples)), samples=samples, seed=seed)
    drawn = [mean_samples(values, weights) for values in (flipped, drop)]
    rate_ends = share_interval(flipped.mean(1), drawn[0], groups=len(couples))
    return FlipRates(
        flipped.mean(1), rate_ends, drop.mean(1), percentile_interval(drop.mean(1), drawn[1], groups=len(couples))
    )
