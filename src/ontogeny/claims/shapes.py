"""The seven shapes of a claim on a training run. A shape gives one effect per seed and the threshold that it must exceed.

Plateau then drop · curve with a rise (or fall) in between · order of two events · power law of an event time · relation across conditions ·
separation of two groups · gap between two elicitation curves.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import numpy as np
import pandas as pd

from ontogeny.claims.quantity import Curve, Event, Quantity
from ontogeny.statistics.power_laws import fit_power_law
from ontogeny.statistics.rank_correlation import rank_correlation


class ClaimShape(Protocol):
    """A shape of a claim."""

    @property
    def threshold(self) -> float:
        """The claim holds for effects above it."""

    @property
    def unit(self) -> str:
        """The effect in words."""

    def effects(self, records: pd.DataFrame) -> dict[int, float]:
        """The effect of each seed; NaN where it cannot be computed."""

    def under(self, control: str) -> Self:
        """The same shape on the rows of a null run."""


@dataclass(frozen=True)
class PlateauThenDrop:
    """A curve stays flat, then falls fast: the plateau is longer than the drop. A curve that falls steadily has an effect of 1/8.

    The plateau ends when a tenth of the whole decrease is done, the drop when nine tenths are. On a logarithmic scale a loss that falls
    by a factor of ten and then by another one has done one half.
    """

    curve: Quantity
    factor: float = 3.0
    """Least ratio of the first to the last value; the effect of a smaller drop is 0."""
    threshold: float = 1.0
    log: bool = False
    """Whether decreases are measured on a logarithmic scale."""
    unit: str = "length of the plateau over length of the drop"

    def under(self, control: str) -> "PlateauThenDrop":
        return replace(self, curve=self.curve.under(control))

    def effects(self, records: pd.DataFrame) -> dict[int, float]:
        return {seed: self._effect(curve) for seed, curve in self.curve.curves(records).items()}

    def _effect(self, curve: Curve) -> float:
        steps, values = curve
        if len(values) < 5:
            return math.nan
        start, end = float(values[0]), float(values[-max(1, len(values) // 10) :].mean())
        if end <= 0 or start < self.factor * end:
            return 0.0
        if self.log:
            values, start, end = np.log(np.maximum(values, 1e-300)), math.log(start), math.log(end)
        done = np.maximum.accumulate((start - values) / (start - end))
        begin, finish = (_crossing(steps, done, share) for share in (0.1, 0.9))
        return begin / max(finish - begin, 1e-9)


@dataclass(frozen=True)
class NonMonotone:
    """A curve rises on the way down (or falls on the way up): its largest move against its course, as a share of its first value."""

    curve: Quantity
    against: Literal["rise", "fall"] = "rise"
    threshold: float = 0.01
    unit: str = "largest move against the course, share of the first value"

    def under(self, control: str) -> "NonMonotone":
        return replace(self, curve=self.curve.under(control))

    def effects(self, records: pd.DataFrame) -> dict[int, float]:
        return {seed: self._effect(values) for seed, (_, values) in self.curve.curves(records).items()}

    def _effect(self, values: np.ndarray) -> float:
        if len(values) < 3 or values[0] == 0:
            return math.nan
        sign = 1 if self.against == "rise" else -1
        moves = sign * values - np.minimum.accumulate(sign * values)
        return float(moves.max() / abs(values[0]))


@dataclass(frozen=True)
class EventOrder:
    """One event comes before another: doublings of the step between them. An event that does not happen counts as after the last step."""

    first: Event
    second: Event
    threshold: float = 0.0
    unit: str = "doublings of the step from the first event to the second"

    def under(self, control: str) -> "EventOrder":
        return replace(self, first=self.first.under(control), second=self.second.under(control))

    def effects(self, records: pd.DataFrame) -> dict[int, float]:
        before, after = self.first.steps(records), self.second.steps(records)
        return {seed: _doublings(before[seed], after[seed]) for seed in before if seed in after}


@dataclass(frozen=True)
class PowerLaw:
    """The step of an event is a power of a parameter: the exponent, fitted over conditions in each seed."""

    event: Event
    parameter: Mapping[str, float]
    """Value of the parameter by condition."""
    sign: Literal[1, -1] = 1
    """Expected sign; the effect is the exponent times it."""
    threshold: float = 0.0
    unit: str = "exponent, times its expected sign"

    def under(self, control: str) -> "PowerLaw":
        return replace(self, event=self.event.under(control))

    def effects(self, records: pd.DataFrame) -> dict[int, float]:
        sizes = {condition: value for condition, value in self.parameter.items() if value > 0}
        times: dict[int, np.ndarray] = {}
        for place, condition in enumerate(sizes):
            event = replace(self.event, quantity=replace(self.event.quantity, condition=condition))
            for seed, (step, _) in event.steps(records).items():
                times.setdefault(seed, np.full(len(sizes), math.nan))[place] = step
        parameter = np.array(list(sizes.values()))
        return {seed: self.sign * fit_power_law(parameter, row).exponent for seed, row in sorted(times.items())}


@dataclass(frozen=True)
class Relation:
    """Two quantities rise together across conditions: Spearman's correlation in each seed, times the expected sign."""

    x: Quantity
    y: Quantity
    conditions: tuple[str, ...]
    sign: Literal[1, -1] = 1
    threshold: float = 0.0
    unit: str = "rank correlation, times its expected sign"

    def under(self, control: str) -> "Relation":
        return replace(self, x=self.x.under(control), y=self.y.under(control))

    def effects(self, records: pd.DataFrame) -> dict[int, float]:
        pairs: dict[int, list[tuple[float, float]]] = {}
        for condition in self.conditions:
            x, y = (replace(q, condition=condition).final_values(records) for q in (self.x, self.y))
            for seed in x.keys() & y.keys():
                pairs.setdefault(seed, []).append((x[seed], y[seed]))
        return {
            seed: self.sign * (rank_correlation(*zip(*points, strict=True)) if len(points) >= 3 else math.nan)
            for seed, points in sorted(pairs.items())
        }


@dataclass(frozen=True)
class Separation:
    """One quantity is larger than another at the end of training: their difference, or the logarithm of their ratio."""

    larger: Quantity
    smaller: Quantity
    ratio: bool = False
    """Whether the effect is log2 of the ratio."""
    threshold: float = 0.0
    unit: str = "difference"

    def under(self, control: str) -> "Separation":
        return replace(self, larger=self.larger.under(control), smaller=self.smaller.under(control))

    def effects(self, records: pd.DataFrame) -> dict[int, float]:
        large, small = self.larger.final_values(records), self.smaller.final_values(records)
        both = sorted(large.keys() & small.keys())
        if not self.ratio:
            return {seed: large[seed] - small[seed] for seed in both}
        return {
            seed: math.log2(large[seed] / small[seed]) if large[seed] > 0 and small[seed] > 0 else math.nan
            for seed in both
        }


@dataclass(frozen=True)
class ElicitationGap:
    """An elicited curve is above the shown one on the way: the mean gap over the measured steps that both have."""

    elicited: Quantity
    shown: Quantity
    threshold: float = 0.0
    unit: str = "mean of elicited minus shown over training"

    def under(self, control: str) -> "ElicitationGap":
        return replace(self, elicited=self.elicited.under(control), shown=self.shown.under(control))

    def effects(self, records: pd.DataFrame) -> dict[int, float]:
        high, low = self.elicited.curves(records), self.shown.curves(records)
        gaps = {}
        for seed in sorted(high.keys() & low.keys()):
            steps, i, j = np.intersect1d(high[seed][0], low[seed][0], return_indices=True)
            gaps[seed] = float((high[seed][1][i] - low[seed][1][j]).mean()) if len(steps) else math.nan
        return gaps


def _crossing(steps: np.ndarray, done: np.ndarray, share: float) -> float:
    """Step at which a rising curve reaches a share, interpolated between measured steps."""
    at = int(np.argmax(done >= share))
    if at == 0:
        return float(steps[0])
    low, high = done[at - 1], done[at]
    return float(steps[at - 1] + (share - low) / (high - low) * (steps[at] - steps[at - 1]))


def _doublings(first: tuple[float, float], second: tuple[float, float]) -> float:
    a, b = (step if math.isfinite(step) else last for step, last in (first, second))
    if math.isinf(first[0]) and math.isinf(second[0]):
        return math.nan
    return math.log2(b + 1) - math.log2(a + 1)
