"""Queries and keys of chosen heads in one plane: what is near attends to each other (AttentionViz, arXiv:2305.03210).

A panel per head, after the published move and scale: the first two principal components of queries (circles) and keys (crosses) together.
Colour shows on which label the head may be keyed: the position of the token, or row, column, hue or brightness of an image's patch. Ordered
colours that follow each other along a line or a turn show a head that knows the order. Of several seeds the first is drawn.
"""

import itertools
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import blank_chart, inline_rows, missing_rows_reason, panel_title, resolve_scales
from ontogeny.views._layout import Chart, concat
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, MUTED_COLOUR, ORDINAL_SCHEME

title = "Queries and keys in one plane"
place = 48
needs = frozenset({"step", "train_seed", "metric", "value", "coords"})
METRICS = ("plane_x", "plane_y")
select = rows_with_metrics(*METRICS)
where = metric_condition(*METRICS)
MOST_PANELS, MOST_POINTS = 12, 400
_HUES = {
    "grey": MUTED_COLOUR,
    **dict(zip(("blue", "red", "green", "magenta", "yellow", "cyan"), CATEGORY_COLOURS, strict=False)),
}
"""The safe colour that is nearest to a named hue."""
_COORDS = ("panel", "tint", "label", "kind", "token")


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    rows = table[table["value"].notna()]
    rows = rows.assign(**{name: coord_column(rows, name) for name in _COORDS})
    for column, chosen in (("train_seed", rows["train_seed"].min()), ("step", rows["step"].max())):
        rows = rows[rows[column].eq(chosen) | rows[column].isna()]
    points = rows.pivot_table(index=list(_COORDS), columns="metric", values="value", sort=False).reset_index()
    if not set(METRICS) <= set(points.columns) or points[list(METRICS)].dropna().empty:
        return blank_chart(title, missing_rows_reason(table, "both coordinates of a point"))
    points = points.dropna(subset=list(METRICS))
    panels = [_panel(own.head(MOST_POINTS), str(name)) for name, own in points.groupby("panel", sort=False)]
    chart = concat(*panels[:MOST_PANELS], columns=2, spacing=30)
    return resolve_scales(chart, color="independent") if len(panels) > 1 else panels[0]


def _panel(points: pd.DataFrame, name: str) -> Any:
    scale = alt.Scale(zero=False, padding=10, nice=False)
    x, y = (
        alt.X("plane_x:Q", title="first component (units of the joint space)", scale=scale, axis=alt.Axis(tickCount=4)),
        alt.Y(
            "plane_y:Q", title="second component (units of the joint space)", scale=scale, axis=alt.Axis(tickCount=4)
        ),
    )
    kinds = alt.Shape(
        "kind:N", scale=alt.Scale(domain=["query", "key"], range=["circle", "cross"]), legend=alt.Legend(title=None)
    )
    numbers = pd.to_numeric(points["label"], errors="coerce")
    tint = str(points["tint"].iloc[0])
    if numbers.notna().all():
        points, colour = points.assign(label=numbers), alt.Color(
            "label:Q", title=tint, scale=alt.Scale(scheme=ORDINAL_SCHEME), legend=alt.Legend(gradientLength=90)
        )  # fmt: skip
    else:
        names = sorted(set(points["label"]))
        others = itertools.cycle(CATEGORY_COLOURS)
        colours = [_HUES.get(name) or next(others) for name in names]
        colour = alt.Color("label:N", title=tint, scale=alt.Scale(domain=names, range=colours))
    return (
        Chart(inline_rows(points, *_COORDS, *METRICS))
        .mark_point(size=38, filled=True, opacity=0.8)
        .encode(x=x, y=y, color=colour, shape=kinds, tooltip=["kind:N", "token:N", "label:N"])
        .properties(width=CHART_WIDTH / 2 - 160, height=230, title=panel_title(name))
    )
