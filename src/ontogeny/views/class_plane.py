"""Plane: the two classes over training, on one fixed basis. Each point is a text on which neither axis was fitted.

Across: the mass-mean probe of the last checkpoint, whose threshold is the dashed line. Up: the first principal component orthogonal to it,
at the last checkpoint too. Both axes are in units of the stream and the same in all panels, so that the classes move through them as the
representation forms. An early panel with mixed classes may still be readable in another direction: the axes are those of the end.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import coord_column, records_by_concept, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.records import checkpoint_label
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import blank_chart, colour_by_name, inline_rows, missing_rows_reason, panel_title
from ontogeny.views._layout import Chart, concat, overlay, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CHART_WIDTH, MUTED_COLOUR

title = "Plane of the classes"
place = 25
needs = frozenset({"concept", "step", "metric", "value", "coords"})
METRICS = ("plane_probe", "plane_orthogonal", "plane_auroc")
select = rows_with_metrics(*METRICS)
where = metric_condition(*METRICS)
_PANELS, _COLUMNS, _CONCEPTS = 12, 3, 6


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(records)
    known = table[table["value"].notna()]
    rows = known.assign(**{key: coord_column(known, key) for key in ("example", "label", "target")})
    blocks = [block for s in list(records_by_concept(rows))[:_CONCEPTS] if (block := _block(s.name, s.rows, line))]
    if not blocks:
        return blank_chart(title, missing_rows_reason(table, "plane_probe (a trace with `planes` makes them)"))
    chart = vconcat(*blocks, spacing=28).resolve_scale(color="independent")
    return with_legend(chart, LegendEntry("threshold of the last probe", "upright", MUTED_COLOUR, dash=(4, 3)))


def _block(name: str, rows: pd.DataFrame, line: Timeline) -> Any:
    rows = line.place(rows)
    keys = ["stage", "step", "age", "example", "label", "target"]
    points = rows[rows["metric"].ne("plane_auroc")].pivot_table(index=keys, columns="metric", values="value").dropna()
    if points.empty or len(points.columns) < 2:
        return None
    points = points.reset_index().rename(columns={"plane_probe": "across", "plane_orthogonal": "up", "label": "name"})
    # The positive class first: it is blue in every view.
    names = list(points.sort_values("target", ascending=False, kind="stable")["name"].unique())
    scores = rows[rows["metric"].eq("plane_auroc")].drop_duplicates("age").set_index("age")["value"]
    scales = {key: alt.Scale(domain=_ends(points[key]), nice=True, zero=False) for key in ("across", "up")}
    panels = []
    for age, own in list(points.groupby("age", sort=True))[:_PANELS]:
        at = checkpoint_label(str(own["stage"].iloc[0]), float(own["step"].iloc[0]))
        said = f"AUROC {scores[age]:.2f} along the probe".replace("0.", ".") if age in scores.index else ""
        panels.append(_panel(own, panel_title(at, said), names, scales))
    grid = concat(*panels, columns=_COLUMNS, spacing=18).resolve_scale(color="shared")
    return grid.properties(title=panel_title(f"{name} at {rows['site'].iloc[0]}"))


def _panel(points: pd.DataFrame, heading: Any, names: list[str], scales: dict[str, Any]) -> Any:
    x = alt.X(
        "across:Q", title="along the probe (units of the stream)", scale=scales["across"], axis=alt.Axis(tickCount=4)
    )
    y = alt.Y("up:Q", title="orthogonal (units of the stream)", scale=scales["up"], axis=alt.Axis(tickCount=4))
    tooltip = ["example:N", alt.Tooltip("name:N", title="class"), alt.Tooltip("across:Q", format="+.3g")]
    dots = Chart(inline_rows(points, "example", "name", "across", "up")).mark_circle(size=34, opacity=0.75)
    dots = dots.encode(x=x, y=y, color=colour_by_name(names, title="class"), tooltip=tooltip)
    threshold = Chart(alt.InlineData(values=[{"across": 0}])).mark_rule(
        color=MUTED_COLOUR, strokeDash=[4, 3], clip=True
    )
    threshold = threshold.encode(x=alt.X("across:Q", scale=scales["across"]))
    return overlay(threshold, dots).properties(width=CHART_WIDTH / _COLUMNS - 80, height=190, title=heading)


def _ends(values: pd.Series) -> list[float]:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    room = 0.04 * (high - low or 1.0)
    return [low - room, high + room]
