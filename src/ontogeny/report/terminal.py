"""Terminal summary: one line per concept with its curve as a sparkline, then caveats."""

import math
from collections.abc import Callable

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ontogeny.findings.finding import Finding, StepEstimate, collect_findings
from ontogeny.findings.sentences import (
    SCORE_LABELS,
    caveats,
    format_control_task,
    format_event,
    format_interval,
    format_score,
    format_step_interval,
)
from ontogeny.findings.table import evenly_spread
from ontogeny.records import checkpoint_label

_SPARK_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARK_FLOOR = 0.5
"""Start of a sparkline: chance for AUROC; lower scores are drawn as chance."""

_WIDE = ("concept", "site", "score", "TF-IDF", "acc. / control", "untrained", "readable from", "right from")
_NARROW = ("concept", "site", "score", "TF-IDF", "readable from")
_LAYOUTS = (((*_WIDE, "over training"), 32, True), ((*_NARROW, "over training"), 12, False))
"""Columns of the table, blocks of a sparkline, and whether steps of several stages have intervals; the first that fits is taken."""
_UNLIMITED = 10_000
"""Columns of a terminal in which every table fits."""


def print_summary(records: pd.DataFrame, console: Console) -> None:
    """Print the findings of a table of records; names and notes are never read as markup."""
    findings = collect_findings(records)
    if not findings:
        console.print("No concept has a score in this table yet.", style="yellow")
        return
    metrics = list(dict.fromkeys(SCORE_LABELS[f.metric] for f in findings))
    score = f"{metrics[0]} [95 %]" if len(metrics) == 1 else "score [95 %]"
    stages = list(dict.fromkeys(stage for f in findings for stage in f.curve["stage"]))
    several = len(metrics) > 1
    for columns, most, long_step in _LAYOUTS:
        step = format_step_interval if len(stages) == 1 else format_event if long_step else _short_step
        rows = [_cells(f, several, most, step) for f in findings]
        table = _table(rows, [score if name == "score" else name for name in columns])
        if console.measure(table, options=console.options.update(max_width=_UNLIMITED)).maximum <= console.width:
            console.print(table)
            break
    else:
        for finding in findings:
            console.print(_cells_as_line(_cells(finding, True, 12, step)))
    if len(stages) == 1 and stages[0]:
        console.print(Text(f"Steps are those of {stages[0]}.", style="dim"))
    for finding in findings:
        censored = finding.emergence is not None and not finding.emergence.known
        reason = [f"no emergence: {finding.emergence.note}."] if censored and finding.emergence else []
        for text in [*reason, *caveats(finding)]:
            console.print(Text.assemble(("! ", "yellow"), (finding.name, "bold"), " ", text))


def _table(rows: list[dict[str, Text]], names: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*(row.get(name, row["score"]) for name in names))
    return table


def _cells_as_line(cells: dict[str, Text]) -> Text:
    """A concept in a terminal that is too narrow for a table: its cells one after another, in as many lines as they need."""
    named = (("score", ""), ("site", "site "), ("TF-IDF", "TF-IDF "), ("readable from", "readable from "))
    parts = Text(", ").join(Text.assemble((words, "dim"), cells[name]) for name, words in named)
    return Text.assemble(cells["concept"], " ", parts, " ", cells["over training"])


def sparkline(values: list[float], low: float = _SPARK_FLOOR, high: float = 1.0) -> str:
    """Values as blocks between `low` and `high`; a dot for NaN."""

    def block(value: float) -> str:
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return _SPARK_BLOCKS[min(int(share * len(_SPARK_BLOCKS)), len(_SPARK_BLOCKS) - 1)]

    return "".join("·" if math.isnan(value) else block(value) for value in values)


def _cells(finding: Finding, named: bool, most: int, step: Callable[[StepEstimate], str]) -> dict[str, Text]:
    floors = {"TF-IDF": "surface_tfidf", "untrained": "untrained"}
    known = {name: finding.floors.get(control) for name, control in floors.items()}
    start = _SPARK_FLOOR if finding.metric != "r2" else 0.0
    return {
        "concept": Text(finding.name, style="bold"),
        "site": Text(finding.site) if finding.read_at_end else Text("none", style="dim"),
        "score": Text(f"{SCORE_LABELS[finding.metric]} " * named + format_interval(finding.final)),
        **{name: Text("–" if floor is None else format_score(floor.value)) for name, floor in known.items()},
        "acc. / control": Text(format_control_task(finding)),
        "readable from": Text(
            _event(finding.emergence, step), style="green" if finding.emergence and finding.emergence.known else "dim"
        ),
        "right from": Text(_event(finding.answers, step), style="dim"),
        "over training": Text(sparkline(evenly_spread(finding.curve["value"].tolist(), most), start), style="blue"),
    }


def _event(event: StepEstimate | None, step: Callable[[StepEstimate], str]) -> str:
    return "–" if event is None else step(event) if event.known else "none"


def _short_step(event: StepEstimate) -> str:
    """The step with its stage, without the interval: a narrow terminal has no room for both."""
    return checkpoint_label(event.stage, event.step)
