"""Live table of `ontogeny watch` in a terminal: each concept of each run with its curve, its last score and the last alerts."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ontogeny.alerts.detection import ConceptPoint, WatchedSeries
from ontogeny.errors import escape_control
from ontogeny.jobs.watch.follow import FollowedRun
from ontogeny.records import checkpoint_label
from ontogeny.report.terminal import sparkline

if TYPE_CHECKING:
    from rich.console import RenderableType

_MOST_POINTS = 32
_MOST_ALERTS = 6
_COLOURS = {"info": "green", "warning": "yellow", "critical": "red"}


def live_table(runs: Sequence[FollowedRun], activity: str = "") -> "RenderableType":
    """The table as rich draws it.

    Args:
        activity: What is being done now, in place of the last state of the runs.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=False, header_style="bold")
    for name in ("run", "concept", "steps", "curve", "score", "frozen probe", "site"):
        table.add_column(name, no_wrap=name in ("curve", "score"))
    for run in runs:
        for series in run.series:
            own = series.points[series.inherited :]
            last = own[-1]
            place = checkpoint_label(last.stage, last.step)
            cells = (run.name, series.concept, f"{len(own)}, last {place}", _curve(series), score_text(last))
            frozen = "–" if math.isnan(last.frozen.value) else f"{last.frozen.value:.2f}"
            table.add_row(*(Text(escape_control(cell)) for cell in (*cells, frozen, last.site)))
    states = [f"{run.name}: {len(run.done)} traced, {run.activity}" for run in runs]
    lines = [Text(escape_control(activity or "; ".join(states)), style="dim")]
    alerts = [(run.name, alert) for run in runs for alert in run.alerts][-_MOST_ALERTS:]
    lines += [
        Text(escape_control(f"{alert.severity}: {name} {alert.line}"), style=_COLOURS[alert.severity])
        for name, alert in alerts
    ]
    failures = [(run.name, failure) for run in runs for failure in run.failures][-3:]
    lines += [
        Text(escape_control(f"not traced: {name} {f.checkpoint}: {f.reason}"), style="yellow") for name, f in failures
    ]
    return Group(table, *lines) if any(run.series for run in runs) else Group(*lines)


def score_text(point: ConceptPoint) -> str:
    """The score of a point with its interval."""
    score = point.score
    if math.isnan(score.value):
        return "–"
    ends = "" if math.isnan(score.low) else f" ({score.low:.2f}–{score.high:.2f})"
    return f"{score.value:.2f}{ends}"


def _curve(series: WatchedSeries) -> str:
    """The last 32 scores as blocks, from the floor to 1."""
    values = [point.score.value for point in series.points[series.inherited :][-_MOST_POINTS:]]
    return sparkline(values, low=min(series.floor, 0.99))
