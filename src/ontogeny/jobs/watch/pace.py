"""Pace of the measurements of a training: evenly spaced in the logarithm early on, then as often as the budget allows.

A measurement is due when time for it has been earned: its share of the time that has passed. Where the length of the training is
known, the steps 1, 2, 4, 8, … may borrow half of the budget of the whole training, so that they are not missed.
"""

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ontogeny.errors import BadInput

_BORROWED = 0.5
"""Share of the whole budget that the steps 1, 2, 4, … may use before it is earned."""
_MOST_MEASUREMENTS = 200
"""A training of known length is measured at most about so often, so that its run stays small."""
_CAUTION = 1.25
"""The next measurement is taken to cost this much of the mean of the last ones."""
_RECENT = 3


@dataclass
class MeasurementPace:
    """Decides at each step whether to measure, from what measurements have cost so far."""

    budget: float
    """Share of the wall time that measurements may take."""
    steps: int | None = None
    """Steps of the whole training, if known."""
    clock: Callable[[], float] = time.perf_counter
    start: float = field(init=False)
    first_step: int = 0
    spent: float = 0.0
    """Seconds of all measurements and of their preparation."""
    costs: list[float] = field(default_factory=list)
    measured: list[int] = field(default_factory=list)
    """Steps of the measurements."""

    def __post_init__(self) -> None:
        if not 0 < self.budget < 1:
            raise BadInput(
                f"`budget` must be a share of the time between 0 and 1, got {self.budget:g}: set 0.03 for 3 %, or leave the callback "
                "out to measure nothing."
            )
        self.start = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the start, measurements included."""
        return self.clock() - self.start

    @property
    def share(self) -> float:
        """Share of the wall time so far that measurements took."""
        return self.spent / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def expected(self) -> float:
        """Seconds that the next measurement is taken to cost."""
        recent = self.costs[-_RECENT:]
        return _CAUTION * sum(recent) / len(recent) if recent else 0.0

    def due(self, step: int) -> bool:
        """Whether to measure after this step."""
        if self.measured and step <= self.measured[-1]:
            return False
        if not self.costs:
            return True
        since = step - (self.measured[-1] if self.measured else self.first_step)
        if self.steps is not None and since < self.steps / _MOST_MEASUREMENTS and not self._is_mark(step):
            return False
        # The last step is measured whatever the budget says: where it is known to come, its cost is set aside.
        after = self.spent + self.expected * (1 if self.steps is None else 2)
        if after <= self.budget * (self.elapsed + self.expected):
            return True
        return self._is_mark(step) and after <= _BORROWED * self.budget * self._whole_time(step)

    def add(self, step: int, seconds: float) -> None:
        """Count a measurement."""
        self.costs.append(seconds)
        self.measured.append(step)
        self.spent += seconds

    def _is_mark(self, step: int) -> bool:
        """Whether a power of two of steps lies between the last measurement and this step."""
        last = max((self.measured[-1] if self.measured else self.first_step) - self.first_step, 0)
        passed = step - self.first_step
        return passed >= 1 and (last < 1 or math.floor(math.log2(passed)) > math.floor(math.log2(last)))

    def _whole_time(self, step: int) -> float:
        """Seconds that the whole training is going to take; 0 if its length is not known."""
        passed = step - self.first_step
        if self.steps is None or passed < 1:
            return 0.0
        training = (self.elapsed - self.spent) / passed * (self.steps - self.first_step)
        return max(training, 0.0) + self.spent

    def sentence(self) -> str:
        """What the measurements cost, for the end of a training."""
        n = len(self.costs)
        if not n:
            return "no measurement was made."
        mean = sum(self.costs) / n
        gaps = [b - a for a, b in itertools.pairwise(self.measured)]
        spacing = f", {min(gaps)} to {max(gaps)} steps apart" if gaps else ""
        over = f"; more than the budget of {self.budget:.1%}" if self.share > self.budget else ""
        return (
            f"{n} measurement{'s' if n > 1 else ''}{spacing}, {mean:.2g} s each: {self.spent:.2g} s of {self.elapsed:.3g} s, "
            f"{self.share:.1%} of the time{over}."
        )
