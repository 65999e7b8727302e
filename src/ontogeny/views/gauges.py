"""Gauges of a chat model: is their percentage true, and does turning them turn the answers?

Left: how often the likeliest class is right on the test split, by the percentage that the gauge shows, with 95 % intervals; dashed: a
perfectly calibrated gauge. Below: the expected calibration error; grey: perfect calibration stays within it on so few conversations. Right:
the effect of a push towards each class on held-out questions beyond the mean of random directions of equal norm, with its 95 % interval;
diamonds: a push along the reading probe; grey: random directions, 2.5 to 97.5 % of them. A dot inside the grey bar shows no control.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.records import checkpoint_label
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    inline_rows,
    known_intervals,
    missing_rows_reason,
    number_tooltips,
    panel_title,
)
from ontogeny.views._layout import Chart, hconcat, overlay, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR, MUTED_COLOUR

title = "Gauges: calibration and control"
place = 11
needs = frozenset(
    {"concept", "stage", "step", "metric", "control", "method", "value", "low", "high", "n", "coords", "note"}
)
together = True

MOST = 8
"""Gauges that are drawn."""
_KEY = (
    LegendEntry("95 % interval", "line", INK_COLOUR),
    LegendEntry("perfect calibration, or random directions", "band", MUTED_COLOUR, opacity=0.28),
    LegendEntry("a push along the reading probe", "diamond", CATEGORY_COLOURS[1]),
)
_DRAWN = ("gauge_reliability", "gauge_ece", "gauge_control_effect")
select = rows_with_metrics(*_DRAWN, "gauge_control_works")


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    rows = _named(table)
    drawn = rows[rows["metric"].isin(_DRAWN) & rows["value"].notna()]
    if drawn.empty:
        return blank_chart(title, missing_rows_reason(table, "a gauge (ontogeny gauges makes them)"))
    names = list(dict.fromkeys(drawn["name"]))
    more = f"{MOST} of {len(names)} gauges are drawn" if len(names) > MOST else ""
    names = names[:MOST]
    rows = rows[rows["name"].isin(names)]
    panels = [panel for panel in (_reliability(rows, names, more), _errors(rows, names)) if panel is not None]
    control = _control(rows, names)
    left = vconcat(*panels, spacing=20) if panels else None
    parts = [part for part in (left, control) if part is not None]
    chart = hconcat(*parts, spacing=40).resolve_scale(color="independent")
    return with_legend(chart, *_KEY)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with the name of their gauge: its concept, and its checkpoint where there are several."""
    steps = [None if step != step else int(step) for step in table["step"]]
    moments = [checkpoint_label(stage, step) for stage, step in zip(table["stage"], steps, strict=True)]
    several = len(set(moments)) > 1
    names = [f"{c}, {m}" if several else c for c, m in zip(table["concept"], moments, strict=True)]
    return table.assign(name=names, towards=coord_column(table, "towards"))


def _reliability(rows: pd.DataFrame, names: list[str], more: str) -> Any:
    cells = rows[rows["metric"].eq("gauge_reliability") & rows["value"].notna()]
    if cells.empty:
        return None
    cells = cells.assign(confidence=pd.to_numeric(coord_column(cells, "confidence"), errors="coerce"))
    cells = cells[cells["confidence"].notna()].sort_values(["name", "confidence"])
    if cells.empty:
        return None
    domain = [min(0.5, float(cells["confidence"].min()) // 0.1 / 10), 1.0]
    x = alt.X("confidence:Q", title="percentage that is shown (0–1)", scale=alt.Scale(domain=domain))
    y = {"title": "how often it is right (0–1)", "scale": alt.Scale(domain=[0, 1])}
    columns = ("name", "confidence", "value", "low", "high", "n")
    base = Chart(inline_rows(cells, *columns)).encode(x=x, color=colour_by_name(names))
    tooltip = ["name:N", *number_tooltips("confidence", "value", "low", "high"), "n:Q"]
    ends = base.mark_rule(opacity=0.45, strokeWidth=2).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    line = base.mark_line(opacity=0.6, strokeWidth=1.5).encode(y=alt.Y("value:Q", **y))
    points = base.mark_circle(size=60, opacity=0.9).encode(y=alt.Y("value:Q", **y), tooltip=tooltip)
    ideal = Chart(alt.InlineData(values=[{"confidence": end, "value": end} for end in domain]))
    ideal = ideal.mark_line(color=MUTED_COLOUR, strokeDash=[4, 4]).encode(x=x, y=alt.Y("value:Q", **y))
    marks = [ideal, *known_intervals(ends, cells), line, points]
    return overlay(*marks).properties(width=CHART_WIDTH / 2 - 90, height=230, title=panel_title("Calibration", more))


def _errors(rows: pd.DataFrame, names: list[str]) -> Any:
    own = rows[rows["metric"].eq("gauge_ece") & rows["value"].notna()]
    if own[own["control"].eq("")].empty:
        return None
    y = alt.Y("name:N", title="concept", sort=names, scale=alt.Scale(domain=names))
    x = {"title": "calibration error (0–1)", "scale": alt.Scale(zero=True, nice=True), "axis": alt.Axis(tickCount=4)}
    errors, noise = own[own["control"].eq("")], own[own["control"].eq("calibrated")].assign(start=0.0)
    bars = Chart(inline_rows(noise, "name", "value", "start")).mark_bar(size=9, color=MUTED_COLOUR, opacity=0.28)
    dots = Chart(inline_rows(errors, "name", "value", "n")).mark_circle(size=70, color=CATEGORY_COLOURS[0], opacity=1)
    marks = [bars.encode(x=alt.X("start:Q", **x), x2="value:Q", y=y)] if len(noise) else []
    marks.append(dots.encode(x=alt.X("value:Q", **x), y=y, tooltip=["name:N", *number_tooltips("value"), "n:Q"]))
    return overlay(*marks).properties(width=CHART_WIDTH / 2 - 90, height=22 * len(names) + 12)


def _control(rows: pd.DataFrame, names: list[str]) -> Any:
    own = rows[rows["metric"].eq("gauge_control_effect") & rows["value"].notna()]
    if own.empty:
        return None
    own = own.assign(push=own["name"] + " → " + own["towards"])
    order = [push for name in names for push in dict.fromkeys(own[own["name"].eq(name)]["push"])]
    y = alt.Y("push:N", title="condition", sort=order, scale=alt.Scale(domain=order), axis=alt.Axis(labelLimit=190))
    x = {"title": "effect beyond random directions (nats)", "axis": alt.Axis(tickCount=5)}
    random, pushed = own[own["control"].eq("random_direction")], own[own["control"].eq("")]
    random = random.assign(low=random["low"] - random["value"], high=random["high"] - random["value"])
    control, reading = (pushed[pushed["method"].eq(method)] for method in ("mass_mean", "logistic"))
    columns = ("push", "value", "low", "high", "n")
    marks = []
    if random[["low", "high"]].notna().all(axis=1).any():
        bars = Chart(inline_rows(random, *columns)).mark_bar(size=10, color=MUTED_COLOUR, opacity=0.28)
        marks.append(bars.encode(x=alt.X("low:Q", **x), x2="high:Q", y=y))
    rules = Chart(inline_rows(control, *columns)).mark_rule(strokeWidth=2, color=INK_COLOUR)
    marks += known_intervals(rules.encode(x=alt.X("low:Q", **x), x2="high:Q", y=y), control)
    for cells, shape, colour in ((reading, "diamond", CATEGORY_COLOURS[1]), (control, "circle", CATEGORY_COLOURS[0])):
        if len(cells):
            dots = Chart(inline_rows(cells, *columns)).mark_point(
                filled=True, shape=shape, size=60, opacity=1, color=colour
            )
            tooltip = ["push:N", *number_tooltips("value", "low", "high"), "n:Q"]
            marks.append(dots.encode(x=alt.X("value:Q", **x), y=y, tooltip=tooltip))
    if not marks:
        return None
    heading = panel_title("Control", *_verdicts(rows, names))
    return overlay(*marks).properties(width=CHART_WIDTH / 2 - 190, height=24 * len(order) + 20, title=heading)


def _verdicts(rows: pd.DataFrame, names: list[str]) -> list[str]:
    """A word on each gauge: its vector steers, does not steer, or the interval does not decide."""
    works = rows[rows["metric"].eq("gauge_control_works")].drop_duplicates("name").set_index("name")["value"]
    known = [name for name in names if name in works.index]
    words = {1.0: "steers", 0.0: "does not steer"}
    return [f"{name} {words.get(works[name], 'undecided')}" for name in known]
