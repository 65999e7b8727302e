"""Elicitation by stage: share of questions answered right plainly and behind worked examples, and read right from the stream.

Dashed: worked examples with wrong answers, and the reading under exchanged labels. Bars are 95 % intervals by group of questions, of the
exchanged labels 95 % of the draws. A capability is elicited before it is shown where a curve is above its dashed one while the plain one is
still at one half. Below: the paired difference to the plain answers.
"""

from typing import Any

import altair as alt
import pandas as pd

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
    "readable_accuracy": "read from the stream",
}
GAINS = {"few_shot_gain": "behind worked examples", "readable_gain": "read from the stream"}
METRICS = (*ACCURACIES, *GAINS)
MOST = 24
"""Maximum number of checkpoints."""
_NULL, _REAL = "null", "measured"
_KEY = (
    LegendEntry("measured", "line", INK_COLOUR),
    LegendEntry("wrong worked examples, exchanged labels", "line", INK_COLOUR, (5, 4)),
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
    return charts


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
