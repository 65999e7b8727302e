"""Curve collapse: whether curves over training of several sizes become one when their step is divided by size^γ.

The spread is the area between the curves over the logarithm of the step, in e-folds: root mean square distance to their mean, over the
height of the mean curve. A curve is extended by its first and last value, so that curves that do not overlap do not count as equal. After
Bhattacharjee & Seno 2001 (arXiv:cond-mat/0102515).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from ontogeny.errors import BadInput

StepCurve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps in ascending order, and the values at these steps."""
_POINTS = 200
_STEP = 0.02
_MOST_ORDERS = 720


@dataclass(frozen=True)
class CollapseFit:
    """Best exponent of a collapse, with the evidence."""

    exponent: float
    low: float
    """95 % percentile interval over resamples of the seeds; NaN with fewer than three seeds."""
    high: float
    spread: float
    """Spread at the best exponent, in e-folds of the step."""
    unscaled: float
    """Spread at exponent 0."""
    p: float
    """Share of the other assignments of sizes to curves whose best spread is as small: the least is 1 over the number of orders."""


def collapse_spread(curves: Sequence[StepCurve], sizes: Sequence[float], exponent: float) -> float:
    """Area between the curves when their steps are divided by size^exponent, in e-folds; NaN if all curves are flat.

    Raises:
        BadInput: fewer than two curves, a size that is not positive, or a curve without two positive steps.
    """
    logs = _check_curves(curves, sizes)
    moved = [x - exponent * math.log(size) for (x, _), size in zip(logs, sizes, strict=True)]
    low, high = min(float(x[0]) for x in moved), max(float(x[-1]) for x in moved)
    grid = np.linspace(low, high, _POINTS)
    values = np.stack([np.interp(grid, x, y) for x, (_, y) in zip(moved, logs, strict=True)])
    mean = values.mean(0)
    height = float(mean.max() - mean.min())
    if height <= 0:
        return math.nan
    distance = np.sqrt(((values - mean) ** 2).mean(0))
    return float(distance.mean() * (high - low) / height)


def fit_collapse(
    seeds: Sequence[Sequence[StepCurve]],
    sizes: Sequence[float],
    *,
    low: float = -1.0,
    high: float = 3.0,
    samples: int = 200,
    seed: int = 0,
) -> CollapseFit:
    """Find the exponent with the least mean spread over seeds.

    Args:
        seeds: For each seed one curve per size.
        low: Lowest exponent that is tried.
        high: Highest one.
        samples: Resamples of the seeds.

    Raises:
        BadInput: no seeds, an empty range, or curves that `collapse_spread` rejects.
    """
    if not seeds or not low < high:
        raise BadInput(
            f"there must be at least one seed and a range of exponents, got {len(seeds)} and {low} to {high}."
        )
    exponents = np.arange(low, high + _STEP / 2, _STEP)
    table = _spreads(seeds, sizes, exponents)
    mean = table.mean(0)
    best = int(np.argmin(np.where(np.isnan(mean), np.inf, mean)))
    unscaled = float(np.mean([collapse_spread(curves, sizes, 0.0) for curves in seeds]))
    if np.isnan(mean).all():
        return CollapseFit(*[math.nan] * 6)
    ends = (math.nan, math.nan)
    if len(seeds) >= 3:
        drawn = np.random.default_rng(seed).integers(len(seeds), size=(samples, len(seeds)))
        found = exponents[np.nanargmin(table[drawn].mean(1), axis=1)]
        ends = (float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975)))
    return CollapseFit(
        float(exponents[best]), *ends, float(mean[best]), unscaled, _order_p(seeds, sizes, exponents, float(mean[best]))
    )


def _spreads(
    seeds: Sequence[Sequence[StepCurve]], sizes: Sequence[float], exponents: NDArray[np.float64]
) -> Float[NDArray[np.float64], "seed exponent"]:
    return np.array([[collapse_spread(curves, sizes, float(e)) for e in exponents] for curves in seeds])


def _order_p(
    seeds: Sequence[Sequence[StepCurve]], sizes: Sequence[float], exponents: NDArray[np.float64], best: float
) -> float:
    """Null: sizes are assigned to curves in another order. Both signs of the exponent are tried, so that a reversed order counts."""
    orders = list(itertools.islice(itertools.permutations(sizes), _MOST_ORDERS))
    coarse = exponents[::5]
    least = [float(np.nanmin(_spreads(seeds, order, coarse).mean(0))) for order in orders[1:]]
    return (1 + sum(value <= best for value in least)) / len(orders)


def _check_curves(curves: Sequence[StepCurve], sizes: Sequence[float]) -> list[StepCurve]:
    if len(curves) != len(sizes) or len(curves) < 2:
        raise BadInput(
            f"there must be at least two curves with a size each, got {len(curves)} curves and {len(sizes)} sizes."
        )
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        raise BadInput(f"`sizes` must be positive numbers, got {list(sizes)}.")
    logs = []
    for steps, values in curves:
        inside = (steps > 0) & np.isfinite(values)
        if inside.sum() < 2:
            raise BadInput(f"a curve must have at least two positive steps with a value, got {int(inside.sum())}.")
        logs.append((np.log(steps[inside]), values[inside]))
    return logs
