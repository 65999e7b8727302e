"""Estimates of the stages' effects against retraining without each stage.

A point is a stage of a training seed; on the line y = x an estimate equals retraining, the mean over data orders. The bar of a point is the
range of retraining over data orders. Further panels: the relative error of estimates at each learning rate and length of a stage, and the
behaviour before and after the planted stage is skipped or subtracted. The noise ceiling is the rank correlation of one half of the data
orders with the other half.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    inline_rows,
    missing_rows_reason,
    number_tooltips,
    panel_title,
)
from ontogeny.views._layout import Chart, concat, overlay
from ontogeny.views._theme import MUTED_COLOUR

title = "Estimates against retraining"
place = 15
needs = frozenset({"stage", "method", "metric", "control", "train_seed", "value", "low", "high", "coords"})
select = rows_with_metrics(
    "stage_effect",
    "noise_ceiling",
    "rank_correlation",
    "error",
    "grid_error",
    "gap",
    "worst_group_accuracy",
    "average_accuracy",
)
_TIERS = ("hessian", "no hessian", "segments", "subtraction", "linearised", "endpoint")
_ERRORS = ("hessian", "gauss newton", "no hessian", "segments", "subtraction")
_AFTER = {
    "gap": "gap (nats)",
    "worst_group_accuracy": "accuracy, worst group (0–1)",
    "average_accuracy": "accuracy (0–1)",
}
_KEY = ["behaviour", "train_seed", "stage"]


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    rows = table[table["value"].notna() & table["control"].eq("")]
    effects = rows[rows["metric"].eq("stage_effect")]
    effects = effects.assign(behaviour=coord_column(effects, "behaviour"), unit_name=coord_column(effects, "unit"))
    truth = effects[effects["method"].eq("retraining")]
    points = effects[effects["method"].isin(_TIERS)].merge(
        truth[[*_KEY, "value", "low", "high"]], on=_KEY, suffixes=("", "_truth")
    )
    if points.empty:
        return blank_chart(
            title, missing_rows_reason(table, "a stage_effect of retraining (ontogeny study run makes them)")
        )
    names = [tier for tier in _TIERS if tier in set(points["method"])]
    panels = [
        _scatter(points[points["behaviour"].eq(behaviour)], str(behaviour), names, rows)
        for behaviour in dict.fromkeys(points["behaviour"])
    ]
    panels += _error_panels(rows)
    panels += [
        _after(rows[rows["metric"].eq(metric)], unit)
        for metric, unit in _AFTER.items()
        if rows["metric"].eq(metric).any()
    ]
    return panels[0] if len(panels) == 1 else concat(*panels, columns=2, spacing=30)


def _scatter(points: pd.DataFrame, behaviour: str, names: list[str], rows: pd.DataFrame) -> Any:
    points = points.assign(
        name=points["method"], truth=points["value_truth"], least=points["low_truth"], most=points["high_truth"]
    )
    base = Chart(inline_rows(points, "name", "stage", "train_seed", "value", "truth", "least", "most"))
    unit = str(points["unit_name"].iloc[0])
    x = alt.X("truth:Q", title=f"retraining ({unit})", axis=alt.Axis(tickCount=5))
    y = alt.Y("value:Q", title=f"estimate ({unit})", axis=alt.Axis(tickCount=5))
    tooltip = ["name:N", "stage:N", "train_seed:N", *number_tooltips("value", "truth", "least", "most")]
    marks = base.mark_point(filled=True, opacity=0.75, size=34).encode(
        x=x, y=y, color=colour_by_name(names), tooltip=tooltip
    )
    orders = base.mark_rule(opacity=0.25).encode(x="least:Q", x2="most:Q", y=y, color=colour_by_name(names))
    ends = [float(points["truth"].min()), float(points["truth"].max())]
    line = Chart(alt.InlineData(values=[{"truth": e, "value": e} for e in ends]))
    equal = line.mark_line(color=MUTED_COLOUR, strokeDash=[4, 3], strokeWidth=1.2).encode(x="truth:Q", y="value:Q")
    ceiling = rows.loc[rows["metric"].eq("noise_ceiling"), "value"]
    first = rows.loc[rows["metric"].eq("rank_correlation") & rows["stage"].eq("hessian"), "value"]
    correlations = [
        f"{word} {values.mean():.2f}"
        for word, values in (("noise ceiling", ceiling), ("hessian", first))
        if len(values)
    ]
    heading = panel_title(
        behaviour, "rank correlation over all behaviours: " + ", ".join(correlations) if correlations else ""
    )
    return overlay(equal, orders, marks).properties(width=280, height=240, title=heading)


def _error_panels(rows: pd.DataFrame) -> list[Any]:
    """Relative error by learning rate, and by steps of a stage; none without a grid."""
    grid = rows[rows["metric"].eq("grid_error") & rows["stage"].isin(_ERRORS)]
    if grid.empty:
        return []
    grid = grid.assign(
        rate=pd.to_numeric(coord_column(grid, "rate")),
        steps=pd.to_numeric(coord_column(grid, "steps")),
        name=grid["stage"],
    )
    panels = []
    for column, unit, log in (("rate", "learning rate (count)", True), ("steps", "steps of a stage (count)", False)):
        own = grid.groupby(["name", column])["value"].agg(["mean", "min", "max"]).reset_index()
        if own[column].nunique() < 2:
            continue
        own = own.rename(columns={"mean": "value", "min": "low", "max": "high", column: "setting"})
        names = [name for name in _ERRORS if name in set(own["name"])]
        base = Chart(inline_rows(own, "name", "setting", "value", "low", "high"))
        scale = alt.Scale(type="log") if log else alt.Scale()
        x = alt.X("setting:Q", scale=scale, title=unit)
        y = alt.Y("value:Q", title="relative error (share of the truth)")
        tooltip = ["name:N", *number_tooltips("setting", "value", "low", "high", digits=".3g")]
        lines = base.mark_line(point=True).encode(x=x, y=y, color=colour_by_name(names), tooltip=tooltip)
        heading = panel_title(f"Error against {unit.split(' (')[0]}")
        panels.append(lines.properties(width=280, height=240, title=heading))
    return panels


def _after(rows: pd.DataFrame, unit: str) -> Any:
    """A quantity with all stages and without the planted one: mean and range over seeds."""
    own = rows.groupby("stage", sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
    own = own.rename(columns={"stage": "name", "mean": "value", "min": "low", "max": "high"})
    base = Chart(inline_rows(own, "name", "value", "low", "high"))
    y = alt.Y("name:N", sort=list(own["name"]), title="condition")
    x = alt.X("value:Q", title=unit, axis=alt.Axis(tickCount=5))
    tooltip = ["name:N", *number_tooltips("value", "low", "high")]
    bars = base.mark_bar(opacity=0.85).encode(x=x, y=y, tooltip=tooltip)
    ranges = base.mark_rule(strokeWidth=1.5).encode(x="low:Q", x2="high:Q", y=y)
    return overlay(bars, ranges).properties(width=280, height=90, title=panel_title(unit.split(" (")[0].capitalize()))
