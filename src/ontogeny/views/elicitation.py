"""Elicitation by stage: share of questions answered right plainly, behind worked examples and under steering, and read from the stream.

Dashed: worked examples with wrong answers, random vectors as long, and the reading under exchanged labels. Bars are 95 % intervals by group
of questions, of the exchanged labels 95 % of the draws. A capability is elicited before it is shown where a curve is above its dashed one
while the plain one is still at one half. Below: the paired difference to the plain answers, and over the checkpoints of a stage the step at
which each way has half of its gain.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import IntervalEstimate
from ontogeny.findings.sentences import format_interval
from ontogeny.findings.table import ConceptRecords, mean_over_seeds
from ontogeny.findings.timeline import Timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import colour_by_name, inline_rows, known_intervals, number_tooltips, panel_title
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._legend import LegendEntry
from ontogeny.views._stage_grid import checkpoint_rows, each_stage, stack_concepts
from ontogeny.views._theme import CHART_WIDTH, INK_COLOUR, MUTED_COLOUR

title = "Elicitation, stage by stage"
place = 12
needs = frozenset({"stage", "concept", "metric", "control", "value", "low", "high"})

ACCURACIES = {
    "shown_accuracy": "answered plainly",
    "few_shot_accuracy": "behind worked examples",
    "steered_accuracy": "under steering",
    "readable_accuracy": "read from the stream",
}
GAINS = {name.replace("accuracy", "gain"): words for name, words in ACCURACIES.items() if name != "shown_accuracy"}
STEPS = {name.replace("accuracy", "step"): words for name, words in ACCURACIES.items()}
DIFFERENCES = {
    name.replace("accuracy", "minus_shown"): words for name, words in ACCURACIES.items() if name != "shown_accuracy"
}
METRICS = (*ACCURACIES, *GAINS, *STEPS, *DIFFERENCES)
MOST = 24
"""Maximum number of checkpoints."""
_NULL, _REAL = "null", "measured"
_KEY = (
    LegendEntry("measured", "line", INK_COLOUR),
    LegendEntry("wrong worked examples, random vectors, exchanged labels", "line", INK_COLOUR, (5, 4)),
)
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    return stack_concepts(records, select(records), _subject, title=title, what="shown_accuracy", legend=_KEY)


def _subject(subject: ConceptRecords, line: Timeline) -> list[Any]:
    rows, order = checkpoint_rows(subject, line, most=MOST)
    if not order:
        return []
    rows = rows[rows["moment"].isin(order)]
    rows = rows.assign(kind=[_NULL if control else _REAL for control in rows["control"]])
    charts = []
    for names, y, rule in (
        (ACCURACIES, "share of the questions (0–1)", 0.5),
        (GAINS, "less plain answers (−1 to 1)", 0.0),
    ):
        own = rows[rows["metric"].isin(list(names))]
        if len(own):
            own = own.assign(name=own["metric"].map(names))
            charts.append(_curves(own, order, y, rule, list(ACCURACIES.values())))
    if charts:
        shown = rows[rows["metric"].eq("shown_accuracy")]
        said = each_stage(shown, order) if len(order) <= 6 else ""
        charts[0] = charts[0].properties(title=panel_title("Right answers", f"plainly {said}" if said else ""))
    return [
        *charts,
        *(
            _steps(rows, moment)
            for moment in order
            if (rows["moment"].eq(moment) & rows["metric"].isin(list(STEPS))).any()
        ),
    ]


def _order(doublings: IntervalEstimate) -> str:
    """How far from the plain answers a way of asking is; before or after only if the interval leaves out 0."""
    if doublings.high < 0:
        before = IntervalEstimate(-doublings.value, -doublings.high, -doublings.low)
        return f"{format_interval(before)} doublings before the plain answers"
    if doublings.low > 0:
        return f"{format_interval(doublings)} doublings after the plain answers"
    return f"{format_interval(doublings)} doublings from the plain answers, order not settled"


def _steps(rows: pd.DataFrame, moment: str) -> Any:
    """The step of each way of asking over the checkpoints up to one, with its interval."""
    own = rows[rows["moment"].eq(moment)]
    events = own[own["metric"].isin(list(STEPS)) & own["control"].eq("")]
    events = mean_over_seeds(events.assign(name=events["metric"].map(STEPS)), "name")
    names = [name for name in STEPS.values() if name in set(events["name"])]
    known = own[own["metric"].isin(list(DIFFERENCES)) & own["control"].eq("")]
    said = [
        f"{DIFFERENCES[metric]} {_order(IntervalEstimate(value, low, high))}"
        for metric, value, low, high in zip(*(known[c] for c in ("metric", "value", "low", "high")), strict=True)
    ]
    base = Chart(inline_rows(events, "name", "value", "low", "high")).encode(
        y=alt.Y("name:N", sort=names, title="condition"), color=colour_by_name(list(ACCURACIES.values()), legend=False)
    )
    x = alt.X(
        "value:Q",
        title="training step",
        scale=alt.Scale(type="symlog", constant=10),
        axis=alt.Axis(labelOverlap="greedy", labelSeparation=8, tickCount=6),
    )
    points = base.mark_circle(size=70, opacity=1).encode(
        x=x, tooltip=["name:N", *number_tooltips("value", "low", "high", digits=",.0f")]
    )
    bars = (
        base.transform_filter("datum.low != null")
        .mark_rule(strokeWidth=1.6)
        .encode(x=alt.X("low:Q", title="training step"), x2="high:Q")
    )
    chart = overlay(*known_intervals(bars, events), points).properties(
        width=CHART_WIDTH - 380, height=22 * len(names) + 10
    )
    return chart.properties(title=panel_title(f"Half of the gain, up to {moment}", *said))


def _curves(rows: pd.DataFrame, order: list[str], y: str, rule: float, names: list[str]) -> Any:
    rows = mean_over_seeds(rows, "moment", "name", "kind")
    columns = ("moment", "name", "kind", "value", "low", "high")
    base = Chart(inline_rows(rows, *columns)).encode(
        x=alt.X(
            "moment:N",
            sort=order,
            title="stage",
            scale=alt.Scale(domain=order),
            axis=alt.Axis(labelAngle=-30),
        ),
        xOffset=alt.XOffset("name:N", scale=alt.Scale(domain=names, paddingOuter=1)),
        color=colour_by_name(names),
    )
    dash = alt.StrokeDash("kind:N", scale=alt.Scale(domain=[_REAL, _NULL], range=[[1, 0], [5, 4]]), legend=None)
    value = alt.Y("value:Q", title=y, axis=alt.Axis(grid=True, tickCount=5))
    lines = base.mark_line(strokeWidth=1.8).encode(y=value, strokeDash=dash, detail="kind:N")
    tooltip = ["moment:N", "name:N", "kind:N", *number_tooltips("value", "low", "high")]
    points = (
        base.transform_filter(f"datum.kind == '{_REAL}'")
        .mark_circle(size=45, opacity=1)
        .encode(y=value, tooltip=tooltip)
    )
    bars = base.transform_filter("datum.low != null").mark_rule(strokeWidth=1.3, opacity=0.6)
    bars = bars.encode(y=alt.Y("low:Q", title=y), y2="high:Q")
    chance = Chart(alt.InlineData(values=[{"y": rule}])).mark_rule(color=MUTED_COLOUR, strokeDash=[2, 2])
    layers = [chance.encode(y=alt.Y("y:Q", title=y)), *known_intervals(bars, rows), lines, points]
    return overlay(*layers).properties(width=CHART_WIDTH - 260, height=200)
