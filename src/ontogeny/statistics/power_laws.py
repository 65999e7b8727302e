"""Power law of an event time: the exponent over sizes, with an interval, common to several seeds.

Least squares on logarithms; each seed has its own factor, since its events come early or late together. The interval is Student's t with
the residuals of all seeds, or with the spread over seeds of their own exponents if there are at least three.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.statistics.bootstrap import student_t_quantile


@dataclass(frozen=True)
class PowerLawFit:
    """time = factor × size^exponent."""

    exponent: float
    """NaN with fewer than two sizes."""
    low: float
    """95 % interval of the exponent; infinite if nothing tells the spread."""
    high: float
    factor: float
    """Geometric mean over seeds."""
    r2: float
    """Explained variance of the logarithms, within seeds."""
    points: int
    """Number of events."""
    censored: int
    """Events that did not happen; they are left out, which pulls the exponent down if they belong to large sizes."""


def fit_power_law(
    sizes: Float[NDArray[np.float64], " size"], times: Float[NDArray[np.float64], "*seed event"], *, level: float = 0.95
) -> PowerLawFit:
    """Fit the exponent of event times in a size.

    Args:
        sizes: Positive numbers.
        times: Time of the event by size, or by seed and size; infinite or NaN if it did not happen, and a time of 0 counts as such.

    Raises:
        BadInput: sizes that are not positive, or times that do not match them.
    """
    sizes, table = np.asarray(sizes, dtype=np.float64), np.atleast_2d(np.asarray(times, dtype=np.float64))
    if sizes.ndim != 1 or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise BadInput(f"`sizes` must be positive numbers, got {sizes.tolist()}.")
    if table.ndim != 2 or table.shape[1] != len(sizes):
        raise BadInput(
            f"`times` must have one time for each of {len(sizes)} sizes, got an array of shape {np.shape(times)}."
        )
    known = np.isfinite(table) & (table > 0)
    usable = [seed for seed in range(len(table)) if len(set(sizes[known[seed]])) > 1]
    points = int(known[usable].sum())
    censored = int((~known).sum())
    if not usable:
        return PowerLawFit(math.nan, math.nan, math.nan, math.nan, math.nan, points, censored)
    rows = [(np.log(sizes[known[s]]), np.log(table[s, known[s]])) for s in usable]
    xs, ys = ([column - column.mean() for column in columns] for columns in zip(*rows, strict=True))
    x, y = np.concatenate(xs), np.concatenate(ys)
    exponent = float(x @ y / (x @ x))
    factor = math.exp(float(np.mean([b.mean() - exponent * a.mean() for a, b in rows])))
    rest, total = float(((y - exponent * x) ** 2).sum()), float((y**2).sum())
    own = np.array([a @ b / (a @ a) for a, b in zip(xs, ys, strict=True)])
    freedom = len(x) - len(usable) - 1
    if len(own) >= 3:
        half = student_t_quantile(float(len(own) - 1), level) * float(own.std(ddof=1)) / math.sqrt(len(own))
    elif freedom > 0:
        half = student_t_quantile(float(freedom), level) * math.sqrt(rest / freedom / float(x @ x))
    else:
        half = math.inf
    r2 = 1 - rest / total if total > 0 else math.nan
    return PowerLawFit(exponent, exponent - half, exponent + half, factor, r2, points, censored)
