"""A behaviour along the path of training stages, as `ontogeny attribute` measures it.

One row per behaviour, one panel per stage on the path. The band is the 95 % interval over examples. The change within a panel is the
endpoint effect of the stage, and the changes from point to point add up to it.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import (
    blank_chart,
    inline_rows,
    missing_rows_reason,
    number_tooltips,
    panel_title,
)
from ontogeny.views._layout import Chart, hconcat, overlay, vconcat
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH

title = "Behaviour along the path of stages"
place = 16
needs = frozenset({"stage", "step", "metric", "value", "low", "high", "coords"})
select = rows_with_metrics("behaviour")
_MOST_BEHAVIOURS = 12


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    rows = table[table["value"].notna() & table["step"].notna()]
    if rows.empty:
        return blank_chart(title, missing_rows_reason(table, "a behaviour (ontogeny attribute makes them)"))
    rows = rows.assign(behaviour=coord_column(rows, "behaviour"), unit_name=coord_column(rows, "unit"))
    lines = [
        _line(rows[rows["behaviour"].eq(b)], str(b)) for b in list(dict.fromkeys(rows["behaviour"]))[:_MOST_BEHAVIOURS]
    ]
    return lines[0] if len(lines) == 1 else vconcat(*lines, spacing=26)


def _line(rows: pd.DataFrame, behaviour: str) -> Any:
    stages = list(dict.fromkeys(rows["stage"]))
    least, most = float(rows["low"].fillna(rows["value"]).min()), float(rows["high"].fillna(rows["value"]).max())
    scale = alt.Scale(domain=[least, most], nice=True, zero=False)
    width = max(90.0, (CHART_WIDTH - 80) / len(stages) - 24)
    panels = []
    for place, stage in enumerate(stages):
        own = rows[rows["stage"].eq(stage)].sort_values("step")
        base = Chart(inline_rows(own, "stage", "step", "value", "low", "high"))
        x = alt.X("step:Q", title="training step", axis=alt.Axis(tickCount=4, format="~s"))
        title_of_axis = f"γ ({rows['unit_name'].iloc[0]})" if place == 0 else None
        axis = alt.Axis(tickCount=5) if place == 0 else alt.Axis(labels=False, ticks=False)
        y = alt.Y("value:Q", scale=scale, title=title_of_axis, axis=axis)
        tooltip = ["stage:N", alt.Tooltip("step:Q", format=","), *number_tooltips("value", "low", "high")]
        colour = CATEGORY_COLOURS[0]
        line = base.mark_line(point=True, color=colour).encode(x=x, y=y, tooltip=tooltip)
        layers = [line]
        if own["low"].notna().any():
            layers.insert(
                0, base.mark_area(opacity=0.15, color=colour).encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q")
            )
        heading = panel_title(stage if place else f"{behaviour}: {stage}")
        panels.append(overlay(*layers).properties(width=width, height=140, title=heading))
    return panels[0] if len(panels) == 1 else hconcat(*panels, spacing=8)
