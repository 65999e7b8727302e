"""Pace of the measurements of a training: evenly spaced in the logarithm early on, then as often as the budget allows.

The budget is the time that watching may add to the training, by the wall and by the processor; the tighter of the two decides. Where the
length of the training is known, costs that come once (preparation, the last measurement, relating the checkpoints) are set aside from the
budget of the whole training, the rest is spread over its steps, and the steps 1, 2, 4, 8, … may use half of the rest in advance. Where it
is not known, every cost is earned before it is made.
"""

import itertools
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from numbers import Integral

from ontogeny.errors import BadInput
from ontogeny.jobs.watch.cost_clock import CostClock

_BORROWED = 0.5
"""Share of what is left for measurements that the steps 1, 2, 4, … may use before it is earned."""
_MOST_MEASUREMENTS = 200
"""A training of known length is measured at most about so often, so that its run stays small."""
_GROWING = 4
"""Where the length is not known, the spacing grows with the steps so far: by this much of what it were if the training ended now."""
_RELATING = 2.0, 0.1
"""Seconds of relating the checkpoints at the end, in measurements: once, and for each measurement made."""

_AS_FACTOR = 10.0
"""A share from which it is said as a multiple."""


def _clocks() -> tuple[CostClock, ...]:
    return CostClock("wall time", time.perf_counter), CostClock("processor time", time.process_time)


@dataclass
class MeasurementPace:
    """Decides at each step whether to measure, from what measurements have cost so far."""

    budget: float
    """Time that watching may add to the training: 0.03 for 3 %."""
    steps: int | None = None
    """Steps of the whole training, if known."""
    clocks: tuple[CostClock, ...] = field(default_factory=_clocks)
    first_step: int = 0
    measured: list[int] = field(default_factory=list)
    """Steps of the measurements."""
    current: int | None = field(default=None, init=False)
    """The step at which the training is."""
    prepared: float = field(default=0.0, init=False)
    """Seconds of preparation, by the wall."""
    related: float = field(default=0.0, init=False)
    """Seconds of relating the checkpoints at the end, by the wall."""

    def __post_init__(self) -> None:
        if not isinstance(self.budget, int | float) or not 0 < self.budget < 1:
            raise BadInput(
                f"`budget` must be a share of the time between 0 and 1, got {self.budget!r}: set 0.03 for 3 %, or leave the callback "
                "out to measure nothing."
            )
        if self.steps is not None and (not isinstance(self.steps, Integral) or self.steps < 1):
            raise BadInput(
                f"`steps` must be a number of steps from 1 on, got {self.steps!r}: leave it out if it is not known."
            )

    @property
    def share(self) -> float:
        """Cost so far per second of the training alone, on the clock on which it is larger."""
        return max(clock.share for clock in self.clocks)

    def due(self, step: int) -> bool:
        """Whether to measure after this step; to be asked after every step."""
        if step != self.current:
            self._end_step(step)
        due = self._is_due(step)
        if not due:
            self._begin_step(follows_visit=False)
        return due

    def _is_due(self, step: int) -> bool:
        if not self.measured:
            return True
        if step <= self.measured[-1]:
            return False
        mark = self._is_mark(step)
        span = _GROWING * (step - self.first_step) if self.steps is None else self.steps - self.first_step
        if step - self.measured[-1] < span / _MOST_MEASUREMENTS and not mark:
            return False
        return all(self._allows(clock, step, mark=mark) for clock in self.clocks)

    def _allows(self, clock: CostClock, step: int, *, mark: bool) -> bool:
        """Whether the budget of this clock has room for a measurement now."""
        expected = clock.expected
        once, each = _RELATING
        ending = expected * (1 + once + each * (1 + len(clock.visits)))  # the last measurement, and relating
        if self.steps is None:
            return clock.spent + expected + ending <= self.budget * clock.training
        passed = step - self.first_step
        if passed < 1:
            return False
        whole = max(self.steps - self.first_step, passed)
        left = self.budget * clock.training * whole / passed - clock.once - ending
        earned = max(passed / whole, _BORROWED if mark else 0.0)
        return clock.spent - clock.once + expected <= left * earned

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Count the block as preparation."""
        with self._once():
            yield
        self.prepared = self.clocks[0].once

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Count the block as a part of the last measurement."""
        try:
            with ExitStack() as blocks:
                for clock in self.clocks:
                    blocks.enter_context(clock.adding())
                yield
        finally:
            self._begin_step(follows_visit=True)

    @contextmanager
    def relating(self) -> Iterator[None]:
        """Count the block as relating the checkpoints at the end."""
        with self._once():
            yield
        self.related = self.clocks[0].once - self.prepared

    @contextmanager
    def _once(self) -> Iterator[None]:
        with ExitStack() as blocks:
            for clock in self.clocks:
                blocks.enter_context(clock.counting_once())
            yield

    @contextmanager
    def visiting(self, step: int) -> Iterator[None]:
        """Count the block as the measurement after a step."""
        if step != self.current:
            self._end_step(step)
        self.measured.append(step)
        try:
            with ExitStack() as blocks:
                for clock in self.clocks:
                    blocks.enter_context(clock.visiting())
                yield
        finally:
            self._begin_step(follows_visit=True)

    def _end_step(self, step: int) -> None:
        if self.current is None:
            self.first_step = step
        self.current = step
        for clock in self.clocks:
            clock.end_step()

    def _begin_step(self, *, follows_visit: bool) -> None:
        for clock in self.clocks:
            clock.begin_step(follows_visit=follows_visit)

    def _is_mark(self, step: int) -> bool:
        """Whether a power of two of steps lies between the last measurement and this step."""
        last = max(self.measured[-1] - self.first_step, 0)
        passed = step - self.first_step
        return passed >= 1 and (last < 1 or math.floor(math.log2(passed)) > math.floor(math.log2(last)))

    def sentence(self) -> str:
        """Cost of the measurements, for the end of a training."""
        visits = self.clocks[0].visits
        n = len(visits)
        if not n:
            return "no measurement was made."
        gaps = [b - a for a, b in itertools.pairwise(self.measured)]
        spacing = f", {min(gaps)} to {max(gaps)} steps apart" if gaps else ""
        once = f", {self.prepared:.2g} s of preparation"
        once += f" and {self.related:.2g} s of relating the checkpoints" if self.related else ""
        shares = " and ".join(f"{_share_text(clock.share)} its {clock.name}" for clock in self.clocks)
        return (
            f"{n} measurement{'s' if n > 1 else ''}{spacing}, {sum(visits) / n:.2g} s each{once}: {self.clocks[0].spent:.2g} s beside "
            f"{self.clocks[0].training:.3g} s of training, {shares}{self._over()}."
        )

    def _over(self) -> str:
        """Whether the budget was kept; if not, whether the training was too short for it."""
        if self.share <= self.budget:
            return ""
        least = max(
            (c.once + sum({0: c.visits[0], len(c.visits) - 1: c.visits[-1]}.values())) / (c.training or math.inf)
            for c in self.clocks
        )
        over = f"; more than the budget of {self.budget:.1%}"
        if least > self.budget:
            over += (
                f", since the costs that come once, the first step and the last one alone add {_share_text(least)} it"
            )
        return over


def _share_text(share: float) -> str:
    return f"{share:.1%} of" if share < _AS_FACTOR else f"{share:.0f} times"
