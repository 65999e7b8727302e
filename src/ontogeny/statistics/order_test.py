"""Order test: permutation test of a rise or fall in a curve against shuffles of its checkpoints.

The test is exact for exchangeable checkpoints: constants, noise, shuffled runs. A single low checkpoint among ten comes first one time
in ten, so one such checkpoint is never evidence. A slow drift also counts as order.
"""

import functools
import itertools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TINY = 1e-12
_MAX_ENUMERATED = 7
"""Up to this many checkpoints all orders are used, beyond it a sample."""


@functools.lru_cache(maxsize=8)
def checkpoint_orders(count: int, *, samples: int = 1999, seed: int = 0) -> Int[Tensor, "sample step"]:
    """Orders of the checkpoints, the true one first."""
    if count <= _MAX_ENUMERATED:
        return torch.tensor(list(itertools.permutations(range(count))))
    noise = torch.rand(samples + 1, count, generator=torch.Generator().manual_seed(seed))
    noise[0] = torch.arange(count) / count
    return noise.argsort(1)


def largest_rise(curves: Float[Tensor, "sample step"]) -> Float[Tensor, " sample"]:
    """Largest sum of squares that one upward step explains: the gap of the means before and after it.

    Variation after the step does not count, so an early step is as clear as a late one.
    """
    count = curves.shape[1]
    before = torch.arange(1, count, dtype=curves.dtype)
    head = curves.cumsum(1)[:, :-1]
    gap = (curves.sum(1, keepdim=True) - head) / (count - before) - head / before
    return (gap.clamp(min=0).square() * before * (count - before) / count).amax(1)


def rise_p_value(points: Float[Tensor, " step"], *, seed: int = 0) -> float:
    """Share of orders of the checkpoints, the true one included, that rise as much as it; 1 for a single checkpoint."""
    return 1.0 if len(points) < 2 else _rise_p(tuple(points.double().tolist()), seed)


@functools.lru_cache(maxsize=8)
def _rise_p(points: tuple[float, ...], seed: int) -> float:
    """Both forms of an event ask for that of one curve."""
    curve = torch.tensor(points, dtype=torch.float64)
    statistic = largest_rise(curve[checkpoint_orders(len(points), seed=seed)])
    return float((statistic >= statistic[0] - _TINY * (1 + statistic[0])).double().mean())


def fall_p_value(points: Float[Tensor, " step"], *, seed: int = 0) -> float:
    """p of a fall, among the checkpoints after the score first reached the upper half of its range.

    An earlier rise is then no evidence, and the test stays exact: that checkpoint does not depend on the order of the later ones.
    """
    return rise_p_value(-points[first_upper_half_step(points) + 1 :], seed=seed)


def first_upper_half_step(points: Float[Tensor, " step"]) -> int:
    """The first checkpoint in the upper half of the range of the scores."""
    return int((points >= (points.max() + points.min()) / 2).int().argmax())


def smallest_p_value(inside: int, count: int) -> float:
    """Smallest p that a test of order can reach: the chance that `inside` of `count` checkpoints come first."""
    return 1 / math.comb(count, inside)
