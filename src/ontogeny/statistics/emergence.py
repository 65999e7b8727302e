"""Emergence step: the step at which a concept emerges or is lost, with an interval; censored unless its tests agree.

A curve has an event if its end differs from its floor and from its lowest score (for a loss: from its peak) by more than resampling of
the test set and permutation of its labels explain, and if the order of its checkpoints matters. The curves of a report are corrected
together (`correct_events`). The step is the curve's last crossing of a level, interpolated between two checkpoints on the axis
log2(step + 1); its interval comes from the resampled curves and always includes both checkpoints.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.statistics import order_test
from ontogeny.statistics.holm import holm_p
from ontogeny.statistics.permutation import tail_p

ThresholdForm = Literal["half", "threshold"]
_ALPHA = 0.05
_TINY = 1e-9
_LEAST_RESAMPLED_P = 1e-5
"""The tail of resampled scores is not known any finer."""
_MIN_CHECKPOINTS = 4
"""With three checkpoints the best of all orders has p = 1/6."""


@dataclass(frozen=True, eq=False)
class EmergenceEvent:
    """A step with its interval; NaN with a reason if censored. `high` is NaN, with a reason, if it lies after the last checkpoint."""

    step: float
    low: float
    high: float
    reason: str
    between: tuple[float, float]
    """Steps of the checkpoints on both sides of the event."""
    samples: Float[Tensor, " sample"]
    """log2(step + 1) of the event in each resample: -inf at or before the first checkpoint, inf after the last."""
    p: float = math.nan
    """Of the last score against the floor, for a loss against the peak; NaN if nothing could be tested. The order has its own test."""
    corrected_p: float = math.nan
    """After the correction for `looks` curves."""
    looks: int = 0

    @property
    def position(self) -> float:
        """log2(step + 1)."""
        return math.log2(self.step + 1)


@dataclass(frozen=True)
class EventDifference:
    """First event minus second, in doublings of log2(step + 1)."""

    value: float
    low: float
    high: float
    reason: str


def emergence_event(
    steps: Shaped[Tensor, " step"],
    points: Float[Tensor, " step"],
    samples: Float[Tensor, "sample step"],
    *,
    floor: float | Float[Tensor, " sample"] = 0.5,
    form: ThresholdForm = "half",
    threshold: float = 0.75,
    level: float = 0.95,
    seed: int = 0,
    end_p: float | None = None,
) -> EmergenceEvent:
    """First step from which the score stays above half-way from floor to final (`half`) or above the threshold.

    Checkpoints without a score are left out.

    Args:
        samples: Scores on resamples of the test groups, the same for all steps.
        floor: Baseline; one that was measured is given as its values on those resamples.
        end_p: p of the last score under permuted labels; with few test groups, resamples alone find too much.
    """
    curve = _Curve.of(steps, points, samples, floor)
    if isinstance(curve, str):
        return _censored(curve, samples)
    final, finals = curve.points[-1], curve.samples[:, -1]
    p = max(_above_p(finals - curve.floors), end_p or 0.0)
    if not final > curve.floor or p > _ALPHA:
        return _censored(
            f"the last score, {final:.3g}, is not significantly above its floor {curve.floor:.3g}", samples, p
        )
    p = max(p, rise := _best_p(final - curve.points, finals[:, None] - curve.samples))
    if form == "threshold" and final < threshold:
        return _censored(f"the last score, {final:.3g}, is below the threshold {threshold:.3g}", samples, p, told=False)
    half = ((curve.floor + final) / 2, (curve.floors + finals) / 2)
    goal, goals = half if form == "half" else (threshold, torch.full_like(finals, threshold))
    order_p = order_test.rise_p_value(curve.points, seed=seed)
    event = _event(curve, samples, goal, goals, 1.0, p, order_p, level)
    if math.isnan(event.step) or rise <= _ALPHA:
        return event
    lowest = float(curve.points.min())
    reason = f"the last score, {final:.3g}, is not significantly above the lowest, {lowest:.3g}"
    return _censored(f"{reason} (p = {rise:.2g})", samples, p, told=False)


def loss_event(
    steps: Shaped[Tensor, " step"],
    points: Float[Tensor, " step"],
    samples: Float[Tensor, "sample step"],
    *,
    floor: float | Float[Tensor, " sample"] = 0.5,
    form: ThresholdForm = "half",
    threshold: float = 0.75,
    level: float = 0.95,
    seed: int = 0,
) -> EmergenceEvent:
    """First step from which the score stays below half-way from peak to final (`half`) or below the threshold.

    The peak is the best of many checkpoints, so it must exceed floor and last score by more than the largest deviation under resampling.
    """
    curve = _Curve.of(steps, points, samples, floor)
    if isinstance(curve, str):
        return _censored(curve, samples)
    top = int(curve.points.argmax())
    peak, final = curve.points[top], curve.points[-1]
    above = _best_p(curve.points - curve.floor, curve.samples - curve.floors[:, None])
    below = _best_p(curve.points - final, curve.samples - curve.samples[:, -1:])
    p = max(above, below)
    if above > _ALPHA:
        reason = f"the peak, {peak:.3g}, was never significantly above its floor {curve.floor:.3g}"
        return _censored(reason, samples, p, told=False)
    if below > _ALPHA:
        reason = f"the last score, {final:.3g}, is not significantly below the peak, {peak:.3g}"
        return _censored(reason, samples, p, told=False)
    if form == "threshold" and not final < threshold <= peak:
        reason = f"the score does not fall through {threshold:.3g}: peak {peak:.3g}, last {final:.3g}"
        return _censored(reason, samples, p, told=False)
    half = ((peak + final) / 2, (curve.samples[:, top] + curve.samples[:, -1]) / 2)
    goal, goals = half if form == "half" else (threshold, torch.full_like(curve.floors, threshold))
    order_p = order_test.fall_p_value(curve.points, seed=seed)
    return _event(curve, samples, goal, goals, -1.0, p, order_p, level)


def correct_events(events: Sequence[EmergenceEvent], others: Sequence[float] = ()) -> list[EmergenceEvent]:
    """The events of one kind in a report, corrected together: one that does not hold among so many looks is censored.

    A look is a curve whose end was tested. The p of the order of the checkpoints is not corrected: it cannot be small for a short
    stage, and it comes on top of a corrected test that the score did rise, or fall, by more than resampling explains.

    Args:
        others: p of further looks of the report.
    """
    every = [*(event.p for event in events), *others]
    corrected = holm_p(torch.tensor(every, dtype=torch.float64)).tolist()[: len(events)]
    looks = sum(not math.isnan(p) for p in every)
    results = []
    for event, p in zip(events, corrected, strict=True):
        if not math.isnan(event.step) and p > _ALPHA:
            reason = f"it does not hold among {looks} looks (p = {event.p:.2g}, {p:.2g} after Holm's correction)"
            event = _censored(reason, event.samples, event.p, told=False)
        results.append(replace(event, corrected_p=p, looks=looks))
    return results


def step_difference(a: EmergenceEvent, b: EmergenceEvent, *, level: float = 0.95) -> EventDifference:
    """Event a minus event b in doublings, from shared resamples; the interval includes the checkpoints around both.

    Raises:
        BadInput: the events have different resamples.
    """
    if len(a.samples) != len(b.samples):
        raise BadInput(
            f"both events must have the same resamples, got {len(a.samples)} and {len(b.samples)}: use one seed."
        )
    for which, event in (("first", a), ("second", b)):
        if math.isnan(event.step):
            return EventDifference(math.nan, math.nan, math.nan, f"the {which} event is censored: {event.reason}")
    low, high = _ends(a.samples - b.samples, level)
    (a_from, a_to), (b_from, b_to) = ([math.log2(step + 1) for step in event.between] for event in (a, b))
    low, high = min(low, a_from - b_to), max(high, a_to - b_from)
    reason = "" if math.isfinite(high - low) else "some resamples have an event outside the checkpoints"
    finite = [end if math.isfinite(end) else math.nan for end in (low, high)]
    return EventDifference(a.position - b.position, finite[0], finite[1], reason)


@dataclass(frozen=True, eq=False)
class _Curve:
    """A curve without the checkpoints and resamples that lack a score."""

    steps: list[float]
    x: Float[Tensor, " step"]
    points: Float[Tensor, " step"]
    samples: Float[Tensor, "whole step"]
    floor: float
    floors: Float[Tensor, " whole"]
    whole: Bool[Tensor, " sample"]

    @classmethod
    def of(
        cls,
        steps: Shaped[Tensor, " step"],
        points: Float[Tensor, " step"],
        samples: Float[Tensor, "sample step"],
        floor: float | Float[Tensor, " sample"],
    ) -> "_Curve | str":
        """The curve, or the reason why it cannot be tested."""
        if (steps[1:] <= steps[:-1]).any() or (steps < 0).any():
            raise BadInput(
                f"the steps of a curve must increase from 0 or more, got {steps.tolist()}: sort the checkpoints."
            )
        known = ~points.isnan()
        if (count := int(known.sum())) < _MIN_CHECKPOINTS:
            return f"{count} checkpoint{'s have' if count != 1 else ' has'} a score, an event needs {_MIN_CHECKPOINTS}"
        floors = (
            floor.double() if isinstance(floor, Tensor) else torch.full((len(samples),), floor, dtype=torch.float64)
        )
        whole = ~(samples[:, known].isnan().any(1) | floors.isnan())
        if whole.sum() < len(samples) / 2:
            return f"only {int(whole.sum())} of {len(samples)} resamples could be scored"
        return cls(
            steps=steps[known].double().tolist(),
            x=(steps[known].double() + 1).log2(),
            points=points[known].double(),
            samples=samples[whole][:, known].double(),
            floor=float(floors[whole].mean()),
            floors=floors[whole],
            whole=whole,
        )


def _event(
    curve: _Curve,
    samples: Tensor,
    goal: Tensor | float,
    goals: Tensor,
    sign: float,
    p: float,
    order_p: float,
    level: float,
) -> EmergenceEvent:
    """The event where a curve last crosses its goal upwards (sign 1) or downwards (sign -1)."""
    at, last = _crossing(curve.x, sign * curve.points[None], sign * torch.as_tensor(goal, dtype=torch.float64)[None])
    index, count = int(last[0]), len(curve.x)
    if index < 0:
        return _censored(
            f"already so at the first checkpoint, step {curve.steps[0]:.0f}; add earlier checkpoints",
            samples,
            p,
            told=False,
        )
    if order_p > _ALPHA:
        start = -1 if sign > 0 else order_test.first_upper_half_step(curve.points)
        before, after = index - start, count - index - 1
        few = order_test.smallest_p_value(max(before, 0), before + after) > _ALPHA
        hint = f"; too few lie before ({before}) and after ({after}) to tell, add some" if few else ""
        reason = f"the order of the checkpoints could be chance{hint} (p = {order_p:.2g})"
        return _censored(reason, samples, p, told=False)
    found = torch.full((len(samples),), torch.nan, dtype=torch.float64)
    found[curve.whole] = _crossing(curve.x, sign * curve.samples, sign * goals)[0]
    low, high = _ends(found, level)
    between = curve.steps[index], curve.steps[index + 1]
    return EmergenceEvent(
        step=_step(at[0]),
        low=min(between[0], _step(low) if math.isfinite(low) else 0.0),
        high=max(between[1], _step(high)) if math.isfinite(high) else math.nan,
        reason="" if math.isfinite(high) else "the upper end lies after the last checkpoint",
        between=between,
        samples=found,
        p=p,
    )


def _crossing(
    x: Float[Tensor, " step"], curves: Float[Tensor, "sample step"], goals: Float[Tensor, " sample"]
) -> tuple[Float[Tensor, " sample"], Shaped[Tensor, " sample"]]:
    """Position from which each curve stays at or above its goal, and the index of the last checkpoint below it, or -1."""
    index = torch.arange(len(x))
    last = torch.where(curves < goals[:, None], index, -1).amax(1)
    left = last.clamp(0, len(x) - 2)
    a, b = (curves.gather(1, side[:, None])[:, 0] for side in (left, left + 1))
    share = ((goals - a) / (b - a)).clamp(0, 1)
    at = x[left] + share * (x[left + 1] - x[left])
    at = torch.where(last < 0, -torch.inf, torch.where(last == len(x) - 1, torch.inf, at))
    return at, last


def _above_p(samples: Float[Tensor, " sample"]) -> float:
    """p of a difference against 0, from its resamples."""
    # The share of resamples at 0 or below is that of the mirrored ones that reach 0.
    return tail_p(0.0, -samples, least=_LEAST_RESAMPLED_P)


def _best_p(points: Float[Tensor, " step"], samples: Float[Tensor, "sample step"]) -> float:
    """p of the best point against 0, in units of its spread: the share of resamples whose largest deviation reaches it."""
    deviations = samples - samples.mean(0)
    spread = deviations.std(0)
    steady = spread <= _TINY
    if steady.all() or bool((points[steady] > _TINY).any()):
        return 1 / (1 + len(samples)) if bool((points[steady] > _TINY).any()) else 1.0
    standard, largest = points[~steady] / spread[~steady], (deviations[:, ~steady] / spread[~steady]).amax(1)
    best = int(standard.argmax())
    reached = int((largest >= standard[best]).sum())
    if reached:
        return (1 + reached) / (1 + len(samples))
    # Finer than the number of resamples: the tail of the best point alone, times the number of points.
    alone = tail_p(float(points[~steady][best]), deviations[:, ~steady][:, best], least=_LEAST_RESAMPLED_P)
    return min(1 / (1 + len(samples)), len(standard) * alone)


def _ends(samples: Float[Tensor, " sample"], level: float) -> tuple[float, float]:
    """Percentiles of values that may be infinite."""
    ordered = samples[~samples.isnan()].sort().values
    if not len(ordered):
        return math.nan, math.nan
    tail = (1 - level) / 2 * (len(ordered) - 1)
    return float(ordered[math.floor(tail)]), float(ordered[math.ceil(len(ordered) - 1 - tail)])


def _step(position: Tensor | float) -> float:
    return float(2 ** float(position) - 1)


def _censored(reason: str, samples: Tensor, p: float = math.nan, *, told: bool = True) -> EmergenceEvent:
    """No event; the reason ends with the p if `told`."""
    nothing = torch.full((len(samples),), torch.nan, dtype=torch.float64)
    because = f"{reason} (p = {p:.2g})" if told and not math.isnan(p) else reason
    return EmergenceEvent(math.nan, math.nan, math.nan, because, (math.nan, math.nan), nothing, p)
