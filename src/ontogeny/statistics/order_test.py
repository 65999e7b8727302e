"""Does the order of the checkpoints matter? A step in a curve, held against the same curve with its checkpoints shuffled.

The test is exact for any curve whose checkpoints could have come in any order: constants, noise, shuffled runs. It has a price:
a single low checkpoint among ten comes first one time in ten, so one such checkpoint can never be evidence. Drift is order too.
"""

import itertools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TINY = 1e-12
_MAX_ENUMERATED = 7
"""Up to this many checkpoints all orders are tried, beyond a sample of them."""


def checkpoint_orders(count: int, *, samples: int = 1999, seed: int = 0) -> Int[Tensor, "sample step"]:
    """Orders of the checkpoints, the true one first."""
    if count <= _MAX_ENUMERATED:
        return torch.tensor(list(itertools.permutations(range(count))))
    noise = torch.rand(samples + 1, count, generator=torch.Generator().manual_seed(seed))
    noise[0] = torch.arange(count) / count
    return noise.argsort(1)


def largest_rise(curves: Float[Tensor, "sample step"]) -> Float[Tensor, " sample"]:
    """The best upward step: largest gap of the means before and after, weighed as the sum of squares that it explains.

    What happens inside the plateau after the step does not count, so an early jump is as clear as a late one.
    """
    count = curves.shape[1]
    before = torch.arange(1, count, dtype=curves.dtype)
    head = curves.cumsum(1)[:, :-1]
    gap = (curves.sum(1, keepdim=True) - head) / (count - before) - head / before
    return (gap.clamp(min=0).square() * before * (count - before) / count).amax(1)


def rise_p_value(points: Float[Tensor, " step"], *, seed: int = 0) -> float:
    """How often another order of the checkpoints rises as well as the true one, which is counted; 1 for a single checkpoint."""
    if len(points) < 2:
        return 1.0
    statistic = largest_rise(points.double()[checkpoint_orders(len(points), seed=seed)])
    return float((statistic >= statistic[0] - _TINY * (1 + statistic[0])).double().mean())


def fall_p_value(points: Float[Tensor, " step"], *, seed: int = 0) -> float:
    """The same downwards, among the checkpoints after the score was first high, so that an earlier rise is no evidence.

    First high: in the upper half of its range. Where that happens says nothing about the order of what follows, so the test stays
    exact.
    """
    return rise_p_value(-points[first_upper_half_step(points) + 1 :], seed=seed)


def first_upper_half_step(points: Float[Tensor, " step"]) -> int:
    """The first checkpoint in the upper half of the range of the scores."""
    return int((points >= (points.max() + points.min()) / 2).int().argmax())


def smallest_p_value(inside: int, count: int) -> float:
    """How often `inside` of `count` checkpoints come first by chance: no test of their order gets below."""
    return 1 / math.comb(count, inside)
