"""Curves of a study: a metric over training steps (or rounds) per condition, as mean and range over seeds; null runs are dashed."""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.jobs.study.paper_study import StudyPicture
from ontogeny.views._chart_parts import apply_theme, blank_chart, colour_by_name, inline_rows
from ontogeny.views._layout import Chart, concat, overlay
from ontogeny.views._theme import CHART_WIDTH

_NULL_DASHES = ([5, 4], [1, 3], [8, 3, 2, 3])
"""One for each null run, again from the first where there are more."""


def draw_study_curves(records: pd.DataFrame, picture: StudyPicture) -> Any:
    """The themed chart of a picture; without such rows, a chart that says so."""
    rows = records[records["metric"].isin(picture.metrics) & records["step"].notna() & records["value"].notna()]
    if picture.conditions:
        rows = rows[rows["stage"].isin(picture.conditions)]
    if rows.empty:
        return apply_theme(blank_chart(picture.title, f"No rows of {', '.join(picture.metrics)} in this run."))
    rows = rows.assign(
        part=[_part(metric, coords, picture) for metric, coords in zip(rows["metric"], rows["coords"], strict=True)]
    )
    keys = ["stage", "control", "part", "step"]
    curves = rows.groupby(keys, dropna=False)["value"].agg(["mean", "min", "max", "count"]).reset_index()
    curves = curves.rename(columns={"stage": "name", "mean": "value", "min": "low", "max": "high", "count": "seeds"})
    curves["kind"] = ["measured" if pd.isna(c) else f"null run: {str(c).replace('_', ' ')}" for c in curves["control"]]
    if picture.log_x:
        curves = curves[curves["step"] > 0]
    names = [n for n in (picture.conditions or tuple(dict.fromkeys(curves["name"]))) if n in set(curves["name"])]
    parts = list(dict.fromkeys(curves["part"]))
    width = CHART_WIDTH - 60 if len(parts) == 1 else CHART_WIDTH / 2 - 90
    kinds = list(dict.fromkeys(curves["kind"]))  # one legend for all panels
    panels = [_panel(curves[curves["part"].eq(part)], part, names, kinds, picture, width) for part in parts]
    chart = panels[0] if len(panels) == 1 else concat(*panels, columns=2, spacing=30)
    return apply_theme(chart)


def _part(metric: str, coords: Any, picture: StudyPicture) -> str:
    """Name of a panel: the metric where there are several, and the coordinates."""
    extra = ", ".join(f"{key} {value}" for key, value in sorted(dict(coords).items()))
    return " · ".join(text for text in (metric if len(picture.metrics) > 1 or not extra else "", extra) if text)


def _panel(
    rows: pd.DataFrame, part: str, names: list[str], kinds: list[str], picture: StudyPicture, width: float
) -> Any:
    base = Chart(inline_rows(rows, "name", "kind", "step", "value", "low", "high", "seeds"))
    scale = alt.Scale(type="log") if picture.log_x else alt.Scale()
    x = alt.X("step:Q", scale=scale, title=picture.x_title, axis=alt.Axis(tickCount=6, format="~s"))
    y_scale = alt.Scale(type="log") if picture.log_y and (rows["low"] > 0).all() else alt.Scale(zero=False)
    y = alt.Y("value:Q", scale=y_scale, title=part or picture.metrics[0].replace("_", " "))
    nulls = [kind for kind in kinds if kind != "measured"]
    dashes = {kind: _NULL_DASHES[i % len(_NULL_DASHES)] for i, kind in enumerate(nulls)}
    dash = alt.StrokeDash(
        "kind:N",
        scale=alt.Scale(domain=kinds, range=[dashes.get(kind, [1, 0]) for kind in kinds]),
        legend=alt.Legend(title=None) if len(kinds) > 1 else None,
    )
    colour = colour_by_name(names)
    band = base.mark_area(opacity=0.15).encode(
        x=x, y=alt.Y("low:Q", scale=y_scale), y2="high:Q", color=colour, detail="kind:N"
    )
    tooltip = [
        alt.Tooltip("name:N", title="condition"), "kind:N", alt.Tooltip("step:Q", format=","),
        alt.Tooltip("value:Q", format=".4g"), alt.Tooltip("seeds:Q"),
    ]  # fmt: skip
    line = base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour, strokeDash=dash, tooltip=tooltip)
    return overlay(band, line).properties(width=width, height=240)
