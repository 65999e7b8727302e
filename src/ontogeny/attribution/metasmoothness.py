"""Metasmoothness: whether training responds smoothly to a stage, so that a first-order estimate can be relied on (arXiv:2503.13751).

Three trainings make the whole, a little less and twice as much less of the stage's updates. Where the two moves of the final parameters
agree in sign, weighted by their size, a derivative describes them. It is a local property: over the whole of a stage's updates the response
may bend all the same, which `share_linearity` measures with one more training.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ontogeny.attribution.path import PathStage, record_path
from ontogeny.attribution.recorded_tiers import Behaviour, behaviour_value

MIN_METASMOOTHNESS = 0.6
"""Below it a first-order estimate is not to be relied on."""


@dataclass(frozen=True)
class Metasmoothness:
    """Agreement of two successive moves, −1 to 1."""

    value: float

    @property
    def reliable(self) -> bool:
        return self.value >= MIN_METASMOOTHNESS

    @property
    def sentence(self) -> str:
        """Meaning of the number for an estimate."""
        number = f"metasmoothness {self.value:.2f}"
        if self.reliable:
            return f"training responds smoothly to this stage ({number})"
        return f"do not rely on first-order estimates of this stage ({number}, below {MIN_METASMOOTHNESS:g})"


def metasmoothness(
    make: Callable[[], nn.Module],
    stages: Sequence[PathStage],
    stage: int,
    *,
    seed: int = 0,
    share: float = 0.02,
    dtype: torch.dtype = torch.float32,
) -> Metasmoothness:
    """Metasmoothness of a training with respect to the updates of a stage.

    Args:
        share: Share of the stage's updates by which the three trainings differ.
    """
    ends = [
        record_path(make, stages, seed=seed, skip=stage, scale=1 - i * share, dtype=dtype).final.parameters.double()
        for i in range(3)
    ]
    near, far = ends[0] - ends[1], ends[1] - ends[2]
    weight = near.abs() + far.abs()
    total = float(weight.sum())
    return Metasmoothness(float((near.sign() * far.sign() * weight).sum()) / total if total else 1.0)


def share_linearity(
    make: Callable[[], nn.Module],
    stages: Sequence[PathStage],
    stage: int,
    behaviour: Behaviour,
    *,
    seed: int = 0,
    share: float = 0.5,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Slope of a behaviour in the share of a stage's updates at the full share, over its slope at a smaller share.

    1: the response is straight, and first order gives the effect of skipping. Below 1: diminishing returns of the stage's updates, and
    first order under-estimates. NaN if the behaviour does not change at the smaller share.

    Args:
        share: The smaller share; skipping the whole stage has, to second order, the slope at 0.5.
    """
    step = 0.04

    def value(at: float) -> float:
        path = record_path(make, stages, seed=seed, skip=stage, scale=at, dtype=dtype)
        return behaviour_value(path, path.final.parameters, behaviour)

    full = (value(1.0) - value(1 - step)) / step
    part = (value(share + step / 2) - value(share - step / 2)) / step
    return full / part if part else math.nan
