"""Doctor: the alerts of a watched training over a finished run, with what to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ontogeny.alerts.detection import Alert, AlertSettings, WatchedSeries, find_alerts
from ontogeny.alerts.series import SeriesReader
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.inputs import as_run
from ontogeny.storage.run import Run


@dataclass(frozen=True)
class Diagnosis:
    """The alerts of a run, and what could not be looked for."""

    alerts: tuple[Alert, ...]
    checkpoints: int
    concepts: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The diagnosis in one sentence."""
        looked = f"{_counted(len(self.concepts), 'concept')} at {_counted(self.checkpoints, 'checkpoint')}"
        if not self.alerts:
            return f"{looked}: no alert."
        worst = sum(alert.severity == "critical" for alert in self.alerts)
        return f"{looked}: {_counted(len(self.alerts), 'alert')}" + (f", {worst} critical." if worst else ".")


def doctor(
    source: Run | str | Path, concepts: Sequence[str] = (), *, settings: AlertSettings | None = None
) -> Diagnosis:
    """The alerts over the checkpoints of a run, in the order of its concepts and stages.

    Args:
        source: A traced or watched run, or its folder.
        concepts: Names of concepts; all by default.
        settings: Limits of the alerts.

    Raises:
        BadInput: the folder is not a run, or lacks a concept, or nothing was traced.
    """
    run, settings = as_run(source), settings or AlertSettings()
    known = [str(entry["name"]) for entry in run.about.get("concepts", ())]
    for name in concepts:
        if name not in known:
            raise unknown_name("traced concept", name, known)
    series = [one for one in SeriesReader(run).read(concepts or known) if one.points]
    if not series:
        raise BadInput(f"{run.folder} must hold traced checkpoints, got none: trace first.")
    alerts = [alert for one in series for alert in find_alerts(one, settings)]
    places = {(p.stage, p.checkpoint) for one in series for p in one.points[one.inherited :]}
    names = tuple(dict.fromkeys(one.concept for one in series))
    return Diagnosis(tuple(alerts), len(places), names, tuple(_notes(series, settings)))


def _notes(series: Sequence[WatchedSeries], settings: AlertSettings) -> list[str]:
    """Which alerts could not be looked for, and why."""
    notes = []
    for one in series:
        own, where = one.points[one.inherited :], f"{one.concept} in {one.points[-1].stage}"
        if len(one.points) < settings.warm_up + settings.confirm:
            needed = settings.warm_up + settings.confirm
            notes.append(f"{where}: {_counted(len(own), 'checkpoint')}, alerts need {needed}")
        if not any(point.score.known for point in own):
            notes.append(f"{where}: no score has an interval, so no change can be separated from noise")
        if not any(point.confidence_change.known for point in own):
            notes.append(f"{where}: no frozen probe, so no drift of confidence is looked for")
        if one.points and not one.angle(0, 0).known:
            notes.append(f"{where}: no directions of folds, so no turn is looked for")
    return notes


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n:,} {noun}s"
