"""Cost clock: seconds of a training and of its measurements, by the wall or of the processor.

The steps after a measurement may be slower than the others (memory that went back to the system, cold caches, an empty queue of the
GPU): their excess is a cost of the measurement.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean, median

_ORDINARY = 64
"""Ordinary steps with which the steps after a measurement are compared."""
_AFTER = 3
"""Steps after a measurement that may be slower."""
_FEWEST = 5
"""Ordinary steps, and measurements, below which no excess is estimated."""
_OUTLIER = 3.0
"""An ordinary step that is longer than this many medians holds something else, such as an evaluation."""
_MEDIAN_ERROR = 1.86
"""Standard error of a median of n normal numbers, in their median deviation over the root of n."""
_RECENT = 3
_CAUTION = 1.25
"""The next measurement is taken to cost this much of the mean of the last ones."""


@dataclass
class CostClock:
    """Time of a training and of its measurements on one clock.

    Args:
        name: As in "wall time".
        now: Gives the seconds of the clock.
    """

    name: str
    now: Callable[[], float] = time.perf_counter
    start: float = field(init=False)
    once: float = 0.0
    """Seconds of preparation, and of relating the checkpoints at the end."""
    visits: list[float] = field(default_factory=list)
    """Seconds of each measurement."""
    visited: float = field(default=0.0, init=False)
    """Seconds of all measurements."""
    excess: list[float] = field(default_factory=list)
    """Seconds by which the steps after a measurement were slower than ordinary ones."""
    ordinary: deque[float] = field(default_factory=lambda: deque(maxlen=_ORDINARY))
    """Seconds of the last ordinary steps."""
    released: float | None = field(default=None, init=False)
    """Time at which the training went on, of the step that is under way."""
    after: list[float] | None = field(default=None, init=False)
    """Seconds of the steps after the last measurement, until there are enough."""

    def __post_init__(self) -> None:
        self.start = self.now()

    @property
    def after_effects(self) -> float:
        """Seconds by which the steps after all measurements were slower, by their median, at most as much as the measurements."""
        n = len(self.excess)
        if n < _FEWEST:
            return 0.0
        middle = median(self.excess)
        # Less one standard error of the median, from the median deviation: beside other work steps differ more than by after-effects.
        error = _MEDIAN_ERROR * median(abs(one - middle) for one in self.excess) / math.sqrt(n)
        return min(max(middle - error, 0.0) * len(self.visits), self.visited)

    @property
    def spent(self) -> float:
        """Seconds that watching has cost."""
        return self.once + self.visited + self.after_effects

    @property
    def training(self) -> float:
        """Seconds of the training without that."""
        return max(self.now() - self.start - self.spent, 0.0)

    @property
    def share(self) -> float:
        """Cost of watching per second of training."""
        training = self.training
        return self.spent / training if training else 0.0

    @property
    def expected(self) -> float:
        """Seconds that the next measurement is taken to cost, with its after-effect."""
        if not self.visits:
            return 0.0
        recent = self.visits[-_RECENT:]
        return _CAUTION * sum(recent) / len(recent) + self.after_effects / len(self.visits)

    @contextmanager
    def counting_once(self) -> Iterator[None]:
        """Count the block as a cost that comes once."""
        began = self.now()
        try:
            yield
        finally:
            self.once += self.now() - began

    @contextmanager
    def visiting(self) -> Iterator[None]:
        """Count the block as a measurement."""
        began = self.now()
        try:
            yield
        finally:
            self.visits.append(self.now() - began)
            self.visited += self.visits[-1]

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Count the block as a part of the last measurement."""
        began = self.now()
        try:
            yield
        finally:
            seconds = self.now() - began
            self.visits[-1] += seconds
            self.visited += seconds

    def end_step(self) -> None:
        """Note that a step of the training has ended."""
        if self.released is None:
            return
        seconds, self.released = self.now() - self.released, None
        if self.after is None:
            self.ordinary.append(seconds)
            return
        self.after.append(seconds)
        if len(self.after) == _AFTER:
            self._compare()

    def begin_step(self, *, follows_visit: bool) -> None:
        """Note that the training goes on."""
        if follows_visit:
            self._compare()
            self.after = []
        self.released = self.now()

    def _compare(self) -> None:
        """Compare the steps after the last measurement with ordinary ones."""
        if self.after and len(self.ordinary) >= _FEWEST:
            limit = _OUTLIER * median(self.ordinary)
            usual = fmean(seconds for seconds in self.ordinary if seconds <= limit)
            self.excess.append(sum(self.after) - len(self.after) * usual)
        self.after = None
