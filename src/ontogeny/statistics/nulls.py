"""Summaries of a null distribution: draws of a statistic under random directions, shuffled labels or other controls."""

from jaxtyping import Float
from torch import Tensor


def null_interval(draws: Float[Tensor, " draw"]) -> tuple[float, float]:
    """2.5 and 97.5 % quantiles of the draws."""
    return float(draws.quantile(0.025)), float(draws.quantile(0.975))


def null_p_value(value: float, draws: Float[Tensor, " draw"]) -> float:
    """Two-sided p: share of the draws at least as far from their mean as `value`, which counts as one of them."""
    centre = draws.mean()
    extreme = int(((draws - centre).abs() >= abs(value - centre)).sum())
    return (extreme + 1) / (len(draws) + 1)
