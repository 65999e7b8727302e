"""Holes in a series of steps: an interval that is twice what the regular steps around it are, in steps or in log2 of steps.

Published series are linear, logarithmic, or one after the other (Pythia: 0, 1, 2, 4 … 512, 1000, 2000 …), so a hole is named only
where the intervals on each side are regular and both are smaller: where the spacing changes, one side is as wide.
"""

import itertools
import math
from collections.abc import Sequence

TWICE = 1.9
ALIKE = 0.12
"""Relative spread up to which intervals count as one spacing (steps are rounded)."""


def holes(steps: Sequence[int]) -> list[tuple[int, int, int]]:
    """(step before, step after, how many are likely missing) for each hole."""
    ordered = sorted(set(steps))
    found: dict[tuple[int, int], int] = {}
    for values in (ordered, [math.log2(step) if step > 0 else -math.inf for step in ordered]):
        intervals = [b - a for a, b in itertools.pairwise(values)]
        for i, interval in enumerate(intervals):
            if math.isfinite(interval) and (usual := _around(intervals, i)) and interval >= TWICE * usual:
                found.setdefault((ordered[i], ordered[i + 1]), round(interval / usual) - 1)
    return [(a, b, n) for (a, b), n in sorted(found.items())]


def _around(intervals: Sequence[float], i: int) -> float | None:
    """The spacing around interval i: the wider of the two sides; None where it is not regular."""
    sides = [list(intervals[max(0, i - 2) : i]), list(intervals[i + 1 : i + 3])]
    if not all(sides):
        # At an end one side must speak for both: it has to be regular for longer.
        sides = [list(intervals[max(0, i - 4) : i]) or list(intervals[i + 1 : i + 5])]
        if len(sides[0]) < 3:
            return None
    elif len(sides[0]) + len(sides[1]) < 3:
        return None
    if not all(_regular(side) for side in sides):
        return None
    return max(sum(side) / len(side) for side in sides)


def _regular(side: Sequence[float]) -> bool:
    return all(map(math.isfinite, side)) and min(side) > 0 and max(side) - min(side) <= ALIKE * max(side)
