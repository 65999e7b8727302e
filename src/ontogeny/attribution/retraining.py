"""Truth by retraining without a stage, over training seeds and data orders, with the noise ceiling of the comparison.

Data order alone moves the end point of a training at first order in the learning rate under AdamW (arXiv:2606.29554), so one retraining is
one noisy draw. The noise ceiling is the correlation that a second set of retrainings reaches with the first one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ontogeny.attribution.path import PathStage, TrainingPath, record_path
from ontogeny.attribution.recorded_tiers import Behaviour, behaviour_value
from ontogeny.errors import BadInput
from ontogeny.statistics.rank_correlation import rank_correlation

StagesOfOrder = Callable[[int], Sequence[PathStage]]
"""The stages with the batches of a data order."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RetrainedEffects:
    """True effects: seed × order × stage × behaviour."""

    effects: Floats

    @property
    def mean(self) -> Floats:
        """Mean effect over seeds and orders: stage × behaviour."""
        mean: Floats = self.effects.mean((0, 1))
        return mean

    @property
    def noise_ceiling(self) -> float:
        """Mean rank correlation, over halves of the orders, of one half's effects with the other's; NaN with fewer than two orders."""
        orders = self.effects.shape[1]
        if orders < 2:
            return math.nan
        rng = np.random.default_rng(0)
        values = []
        for _ in range(20):
            order = rng.permutation(orders)
            first, second = (
                self.effects[:, half].mean(1).ravel() for half in (order[: orders // 2], order[orders // 2 :])
            )
            values.append(rank_correlation(first, second))
        return float(np.mean(values))


def retrained_effects(
    make: Callable[[], nn.Module],
    stages: StagesOfOrder,
    behaviours: Sequence[Behaviour],
    *,
    seeds: Sequence[int],
    orders: Sequence[int],
    dtype: torch.dtype = torch.float32,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> RetrainedEffects:
    """Effects of all stages on all behaviours by retraining without each stage.

    Raises:
        BadInput: no seeds, orders or behaviours.
    """
    if not seeds or not orders or not behaviours:
        raise BadInput("`seeds`, `orders` and `behaviours` must not be empty.")
    count = len(stages(orders[0]))
    effects = np.zeros((len(seeds), len(orders), count, len(behaviours)))
    for i, seed in enumerate(seeds):
        for j, order in enumerate(orders):
            plan = stages(order)
            whole = _values(record_path(make, plan, seed=seed, dtype=dtype), behaviours)
            for stage in range(count):
                effects[i, j, stage] = whole - _values(
                    record_path(make, plan, seed=seed, skip=stage, dtype=dtype), behaviours
                )
            on_progress(i * len(orders) + j + 1, len(seeds) * len(orders))
    return RetrainedEffects(effects)


def _values(path: TrainingPath, behaviours: Sequence[Behaviour]) -> Floats:
    return np.array([behaviour_value(path, path.final.parameters, behaviour) for behaviour in behaviours])
