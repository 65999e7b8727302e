"""Summaries of a null distribution: draws of a statistic under random directions, shuffled labels or other controls."""

import math

from jaxtyping import Float
from torch import Tensor


def null_interval(draws: Float[Tensor, " draw"]) -> tuple[float, float]:
    """2.5 and 97.5 % quantiles of the draws."""
    return float(draws.quantile(0.025)), float(draws.quantile(0.975))


def null_p_value(value: float, draws: Float[Tensor, " draw"]) -> float:
    """Two-sided p: share of the draws at least as far from their mean as `value`, which counts as one of them.

    Draws that are NaN are left out; NaN if the value is, or if all draws are.
    """
    known = draws[~draws.isnan()]
    if math.isnan(value) or (len(draws) and not len(known)):
        return math.nan
    centre = known.mean()
    extreme = int(((known - centre).abs() >= abs(value - centre)).sum())
    return (extreme + 1) / (len(known) + 1)
