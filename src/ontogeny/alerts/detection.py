"""Alerts over the checkpoints of a run: a concept emerges, its probe collapses, its direction turns, the frozen probe's confidence drifts.

Each is a function of the series of one concept in one stage. An alert needs a warm-up, the same finding at two checkpoints in a row
(whose 95 % intervals both lie beyond the limit), and a distance from the last alert of its kind; after it the state must come back,
or a new reference is taken (hysteresis). `docs/watching.md` has their rate of false alarms, from simulation.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from ontogeny.errors import BadInput
from ontogeny.records import checkpoint_label

AlertSeverity = Literal["info", "warning", "critical"]


@dataclass(frozen=True)
class AlertSettings:
    """Limits of the alerts; the defaults are those of the published rate of false alarms."""

    warm_up: int = 3
    """Checkpoints at the start of a stage that only set the reference."""
    confirm: int = 2
    """Checkpoints in a row that must show the same."""
    cooldown: int = 5
    """Checkpoints after an alert without another one of its kind."""
    readable: float = 0.1
    """A concept is readable once the lower end of its score lies this much above its floor."""
    change: float = 0.1
    """Change of a score that counts as emergence or collapse, beyond its interval."""
    angle: float = 45.0
    """Degrees by which a direction must turn."""
    confidence: float = 0.1
    """Change of the mean confidence of the frozen probe, which lies between 0.5 and 1."""

    def __post_init__(self) -> None:
        for name in ("warm_up", "confirm"):
            if getattr(self, name) < 1:
                raise BadInput(f"`{name}` must be at least 1 checkpoint, got {getattr(self, name)}: 2 or 3 is usual.")
        if self.cooldown < 0:
            raise BadInput(f"`cooldown` must be at least 0 checkpoints, got {self.cooldown}: 5 is usual.")
        for name, most in (("readable", 0.5), ("change", 1.0), ("angle", 180.0), ("confidence", 0.5)):
            if not 0 < getattr(self, name) < most:
                raise BadInput(f"`{name}` must lie between 0 and {most:g}, got {getattr(self, name):g}: leave it out.")


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval; NaN where it is not known."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether value and interval are numbers."""
        return not math.isnan(self.value + self.low + self.high)


@dataclass(frozen=True)
class ConceptPoint:
    """One concept at one checkpoint, at its best site there."""

    stage: str
    step: int | None
    checkpoint: str
    score: Measured
    """Of the refitted probe: AUROC, or R² of a number."""
    site: str = ""
    metric: str = "auroc"
    confidence_change: Measured = Measured()
    """Of the frozen probe, since it was frozen."""
    frozen: Measured = Measured()
    """AUROC of the frozen probe."""


@dataclass(frozen=True)
class WatchedSeries:
    """A concept over the checkpoints of one stage, after the last one of the stage before."""

    concept: str
    points: Sequence[ConceptPoint]
    floor: float
    """The score that needs no trained model: chance, or the best surface baseline."""
    angle: Callable[[int, int], Measured] = lambda _, __: Measured()
    """Degrees between the directions of two points, at the best site of the first."""
    inherited: int = 0
    """Points at the start that belong to the stage before."""


@dataclass(frozen=True)
class Alert:
    """Something about a concept that changed, with its interval and what to look at."""

    kind: str
    """emerges, collapses, turns or drifts."""
    concept: str
    stage: str
    step: int | None
    checkpoint: str
    severity: AlertSeverity
    measured: Measured
    reference: float
    """The limit or the level that it is compared with."""
    message: str
    advice: str

    @property
    def line(self) -> str:
        """The alert in one line."""
        return f"{checkpoint_label(self.stage, self.step)}: {self.message}"


def find_alerts(series: WatchedSeries, settings: AlertSettings) -> list[Alert]:
    """All alerts of a series, in the order of its checkpoints."""
    found = [alert for detect in _DETECTORS for alert in detect(series, settings)]
    places = {(p.stage, p.checkpoint): i for i, p in enumerate(series.points)}
    own = [alert for alert in found if places[alert.stage, alert.checkpoint] >= series.inherited]
    return sorted(own, key=lambda alert: places[alert.stage, alert.checkpoint])


def emergence_alerts(series: WatchedSeries, settings: AlertSettings) -> Iterator[Alert]:
    """The score rises above its floor and above its level in the warm-up; the concept must fall back before it can emerge again."""
    limit, points = series.floor + settings.readable, series.points
    start = _warm_up_level(series, settings)
    readable, hits, last = False, 0, -math.inf
    for i, point in enumerate(points):
        if not point.score.known:
            continue
        if i < settings.warm_up:
            readable = point.score.low > limit
            continue
        if readable:
            readable = not point.score.high < limit
            start = min(start, point.score.value) if not readable else start
            hits = 0
            continue
        needed = max(limit, start + settings.change)
        hits = hits + 1 if point.score.low > needed - settings.change / 2 and point.score.value > needed else 0
        if hits >= settings.confirm and i - last > settings.cooldown and point.score.low > limit:
            readable, hits, last = True, 0, i
            yield _alert(
                "emerges",
                series,
                i,
                "info",
                point.score,
                limit,
                f"{series.concept} emerges: {_score(point)} at {point.site}, floor {series.floor:.2f}",
                "Save checkpoints around this step, and trace them for the step with its interval",
            )


def collapse_alerts(series: WatchedSeries, settings: AlertSettings) -> Iterator[Alert]:
    """The score falls below the level that it had kept for three checkpoints; the lower level is then the new reference."""
    kept: list[float] = []
    reference, hits, last = math.nan, 0, -math.inf
    for i, point in enumerate(series.points):
        score = point.score
        if not score.known:
            continue
        kept.append(score.value)
        if len(kept) >= 3:
            level = median(kept[-3:])
            reference = level if math.isnan(reference) else max(reference, level)
        if i < settings.warm_up or math.isnan(reference) or reference < series.floor + settings.readable:
            continue
        fallen = score.high < reference and score.value < reference - settings.change
        hits = hits + 1 if fallen else 0
        if hits >= settings.confirm and i - last > settings.cooldown:
            gone = score.low <= series.floor
            yield _alert(
                "collapses",
                series,
                i,
                "critical" if gone else "warning",
                score,
                reference,
                f"{series.concept} collapses: {_score(point)} at {point.site}, was {reference:.2f}"
                + (", at its floor" if gone else ""),
                "Compare the directions before and after, and look at the loss and the data of these steps",
            )
            reference, kept, hits, last = math.nan, [], 0, i


def turn_alerts(series: WatchedSeries, settings: AlertSettings) -> Iterator[Alert]:
    """The direction of a readable concept turns away from a reference; the turned direction is then the new reference."""
    limit = series.floor + settings.readable
    reference, hits, last = -1, 0, -math.inf
    for i, point in enumerate(series.points):
        if not point.score.known or point.score.low <= limit:
            hits = 0
            continue
        if reference < 0 or i < settings.warm_up:
            reference = i
            continue
        angle = series.angle(reference, i)
        hits = hits + 1 if angle.known and angle.low > settings.angle else 0
        if hits >= settings.confirm and i - last > settings.cooldown:
            since = checkpoint_label(series.points[reference].stage, series.points[reference].step)
            yield _alert(
                "turns",
                series,
                i,
                "warning",
                angle,
                settings.angle,
                f"the direction of {series.concept} turned by {angle.value:.0f}° ({angle.low:.0f}–{angle.high:.0f}) since {since}",
                "Fit vectors and monitors again: those of the earlier direction no longer act on this concept",
            )
            reference, hits, last = i, 0, i


def drift_alerts(series: WatchedSeries, settings: AlertSettings) -> Iterator[Alert]:
    """The mean confidence of the frozen probe leaves the band around its level when it was frozen, and must come back to half of it."""
    armed, hits, last = True, 0, -math.inf
    for i, point in enumerate(series.points):
        change = point.confidence_change
        if not change.known:
            continue
        if not armed:
            armed = abs(change.value) < settings.confidence / 2
            continue
        beyond = change.low > settings.confidence or change.high < -settings.confidence
        hits = hits + 1 if beyond else 0
        if hits >= settings.confirm and i >= settings.warm_up and i - last > settings.cooldown:
            armed, hits, last = False, 0, i
            more = "more" if change.value > 0 else "less"
            yield _alert(
                "drifts",
                series,
                i,
                "warning",
                change,
                settings.confidence,
                f"the frozen probe of {series.concept} is {more} confident by {abs(change.value):.2f} "
                f"({change.low:+.2f} to {change.high:+.2f})",
                "Thresholds that were set with the frozen probe no longer hold: set them again",
            )


_DETECTORS = (emergence_alerts, collapse_alerts, turn_alerts, drift_alerts)


def _warm_up_level(series: WatchedSeries, settings: AlertSettings) -> float:
    values = [p.score.value for p in series.points[: settings.warm_up] if p.score.known]
    return max([series.floor, *values])


def _score(point: ConceptPoint) -> str:
    name = {"auroc": "AUROC", "r2": "R²"}.get(point.metric, point.metric)
    return f"{name} {point.score.value:.2f} ({point.score.low:.2f}–{point.score.high:.2f})"


def _alert(
    kind: str,
    series: WatchedSeries,
    place: int,
    severity: AlertSeverity,
    measured: Measured,
    reference: float,
    message: str,
    advice: str,
) -> Alert:
    point = series.points[place]
    return Alert(
        kind,
        series.concept,
        point.stage,
        point.step,
        point.checkpoint,
        severity,
        measured,
        reference,
        message,
        advice,
    )
