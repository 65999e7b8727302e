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

_MOST_POINTS, _FEWEST_POINTS = 32, 8
"""Scores of a curve in a wide terminal, and in a narrow one."""
_OTHER_COLUMNS = 66
"""Characters of a line beside the curve and the name of the run."""
_LONGEST_RUN, _LONGEST_CONCEPT = 20, 16
_MOST_ALERTS = 6
_COLOURS = {"info": "green", "warning": "yellow", "critical": "red"}


def live_table(runs: Sequence[FollowedRun], activity: str = "", width: int = 120) -> "RenderableType":
    """The table as rich draws it, one line a concept and stage.

    Args:
        activity: What is being done now, in place of the last state of the runs.
        width: Characters of a line.
    """
    from rich.console import Group
    from rich.text import Text

    several = len(runs) > 1
    named = several and width >= _OTHER_COLUMNS + _LONGEST_RUN + _FEWEST_POINTS
    tables: list[RenderableType] = []
    for of in [runs] if named or not several else [[run] for run in runs]:
        if any(run.series for run in of):
            tables += [Text(escape_control(of[0].name), style="bold")] if several and not named else []
            tables.append(_table(of, width, named=named))
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
    return Group(*tables, *lines)


def _table(runs: Sequence[FollowedRun], width: int, *, named: bool) -> "RenderableType":
    """The concepts of some runs.

    Args:
        named: Whether the name of the run is a column.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    points = width - _OTHER_COLUMNS - (_LONGEST_RUN if named else 0)
    points = max(min(points, _MOST_POINTS), _FEWEST_POINTS)
    for name in [*(["run"] if named else []), "concept", "at", "n", "score", "frozen", "site", "curve"]:
        longest = {"run": _LONGEST_RUN, "concept": _LONGEST_CONCEPT}.get(name)
        table.add_column(name, no_wrap=True, max_width=longest, justify="right" if name == "n" else "left")
    for run in runs:
        for series in run.series:
            own = series.points[series.inherited :]
            last = own[-1]
            frozen = "–" if math.isnan(last.frozen.value) else f"{last.frozen.value:.2f}"
            place = checkpoint_label(last.stage, last.step)
            cells = [series.concept, place, f"{len(own)}", score_text(last), frozen, last.site, _curve(series, points)]
            table.add_row(*(Text(escape_control(cell)) for cell in [*([run.name] if named else []), *cells]))
    return table


def score_text(point: ConceptPoint) -> str:
    """The score of a point with its interval."""
    score = point.score
    if math.isnan(score.value):
        return "–"
    ends = "" if math.isnan(score.low) else f" ({score.low:.2f}–{score.high:.2f})"
    return f"{score.value:.2f}{ends}"


def _curve(series: WatchedSeries, points: int) -> str:
    """The last scores as blocks, from the floor to 1."""
    values = [point.score.value for point in series.points[series.inherited :][-points:]]
    return sparkline(values, low=min(series.floor, 0.99))
