"""Effect of each training stage on a behaviour: how would it differ had the stage's updates been skipped?

One row of bars per behaviour, one group per stage, one colour per estimate, with the 95 % interval over examples. Estimates that agree
are evidence; none of them is a retraining. Subtraction and addition remove or add the stage's change of the weights, linearised uses a
gradient.
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
from ontogeny.views._theme import CHART_WIDTH, MUTED_COLOUR

title = "Effect of each stage on a behaviour"
place = 14
needs = frozenset({"stage", "method", "metric", "value", "low", "high", "coords"})
select = rows_with_metrics("stage_effect")
_TIERS = ("endpoint", "subtraction", "addition", "linearised")
_MOST_BEHAVIOURS = 12


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    rows = table[table["value"].notna() & table["method"].isin(_TIERS)]
    if rows.empty:
        return blank_chart(title, missing_rows_reason(table, "a stage_effect (ontogeny attribute makes them)"))
    rows = rows.assign(
        behaviour=coord_column(rows, "behaviour"), unit_name=coord_column(rows, "unit"), name=rows["method"]
    )
    names = [tier for tier in _TIERS if tier in set(rows["name"])]
    behaviours = list(dict.fromkeys(rows["behaviour"]))[:_MOST_BEHAVIOURS]
    panels = [_panel(rows[rows["behaviour"].eq(behaviour)], str(behaviour), names) for behaviour in behaviours]
    return panels[0] if len(panels) == 1 else alt.vconcat(*panels, spacing=26)


def _panel(rows: pd.DataFrame, behaviour: str, names: list[str]) -> Any:
    stages = list(dict.fromkeys(rows["stage"]))
    base = alt.Chart(inline_rows(rows, "stage", "name", "value", "low", "high"))
    x = alt.X("stage:N", sort=stages, title="stage", axis=alt.Axis(labelAngle=0))
    offset = alt.XOffset("name:N", sort=names)
    unit = str(rows["unit_name"].iloc[0])
    y = alt.Y("value:Q", title=f"effect ({unit})", axis=alt.Axis(tickCount=5))
    tooltip = ["stage:N", alt.Tooltip("name:N", title="estimate"), *number_tooltips("value", "low", "high")]
    bars = base.mark_bar(opacity=0.85).encode(x=x, xOffset=offset, y=y, color=colour_by_name(names), tooltip=tooltip)
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=MUTED_COLOUR).encode(y="zero:Q")
    layers = [bars, zero]
    if rows["low"].notna().any():
        layers.append(base.mark_rule().encode(x=x, xOffset=offset, y="low:Q", y2="high:Q"))
    width = min(CHART_WIDTH - 160, 120 * len(stages) + 80)
    return alt.layer(*layers).properties(width=width, height=150, title=panel_title(behaviour))
