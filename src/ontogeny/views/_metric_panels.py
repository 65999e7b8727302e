"""Two curves per concept side by side, such as a rate and what it costs, with bands and stage boundaries."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.timeline import Timeline
from ontogeny.views._axes import stage_boundaries, step_axis
from ontogeny.views._chart_parts import (
    colour_by_name,
    dash_by_name,
    inline_rows,
    interval_band,
    number_tooltips,
    panel_title,
)
from ontogeny.views._layout import Chart, hconcat, overlay
from ontogeny.views._theme import CHART_WIDTH


def metric_panels(
    rows: pd.DataFrame, axes: Mapping[str, Mapping[str, Any]], line: Timeline, *, of: str, fewer: str
) -> Any:
    """A panel per metric, with a line per `name`.

    Args:
        axes: By metric: title and other properties of its y axis.
        of: Unit of `n` in the tooltip.
        fewer: Says how many checkpoints are drawn; empty if all are.
    """
    names = list(rows["name"].unique())
    panels = [_panel(rows[rows["metric"].eq(metric)], axis, names, line, of) for metric, axis in axes.items()]
    chart = hconcat(*panels, spacing=30)
    return chart.properties(title=panel_title(fewer)) if fewer else chart


def _panel(rows: pd.DataFrame, axis: Mapping[str, Any], names: list[str], line: Timeline, of: str) -> Any:
    base = Chart(inline_rows(rows, "name", "site", "n", "age", "stage", "step", "value", "low", "high"))
    base = base.encode(x=step_axis(line, ticks=6), color=colour_by_name(names))
    tooltip = ["name:N", "site:N", "stage:N", *number_tooltips("step", digits=","), alt.Tooltip("n:Q", title=of)]
    tooltip += number_tooltips("value", "low", "high")
    band = interval_band(base, rows, opacity=0.18).encode(y=alt.Y("low:Q", **axis), y2="high:Q")
    curve = base.mark_line(strokeWidth=2, point={"size": 14}).encode(
        y=alt.Y("value:Q", **axis), strokeDash=dash_by_name(names), tooltip=tooltip
    )
    layers = [*stage_boundaries(line, height=200), band, curve]
    return overlay(*layers).properties(width=CHART_WIDTH / 2 - 90, height=200)
