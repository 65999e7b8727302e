"""Effect of each training stage on a behaviour: how would it differ had the stage's updates been skipped?

One panel per behaviour and stage, one bar per estimate, with the 95 % interval over examples; of a study the mean and the range over
training seeds. Retraining without the stage, where it was done, is the dark bar on top. Estimates that agree are evidence. Subtraction and
addition remove or add the stage's change of the weights; linearised uses a gradient; the documentation of attribution has the others.
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
from ontogeny.views._layout import Chart, concat, overlay
from ontogeny.views._theme import CATEGORY_COLOURS, INK_COLOUR, MUTED_COLOUR

title = "Effect of each stage on a behaviour"
place = 14
needs = frozenset({"stage", "method", "metric", "control", "train_seed", "value", "low", "high", "coords"})
select = rows_with_metrics("stage_effect")
_FIRST = ("retraining", "hessian", "gauss newton", "thinned", "no hessian", "segments")
_HIDDEN = ("telescoping",)
"""Telescoping equals endpoint, checkpoint by checkpoint."""
_MOST_PANELS = 24


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    rows = table[table["value"].notna() & ~table["method"].isin(_HIDDEN) & table["control"].eq("")]
    if rows.empty:
        return blank_chart(title, missing_rows_reason(table, "a stage_effect (ontogeny attribute makes them)"))
    rows = _over_seeds(
        rows.assign(
            behaviour=coord_column(rows, "behaviour"), unit_name=coord_column(rows, "unit"), name=rows["method"]
        )
    )
    known = list(dict.fromkeys(rows["name"]))
    names = [name for name in _FIRST if name in known] + [name for name in known if name not in _FIRST]
    stages = sorted(set(rows["stage"])) if rows["seeds"].max() > 1 else list(dict.fromkeys(rows["stage"]))
    panels: list[Any] = []
    for behaviour in dict.fromkeys(rows["behaviour"]):
        own = rows[rows["behaviour"].eq(behaviour)]
        row = [
            _panel(own[own["stage"].eq(stage)], f"{behaviour}, {stage}", names)
            for stage in stages
            if stage in set(own["stage"])
        ]
        if len(panels) + len(row) > _MOST_PANELS:
            break
        panels += row
    return (
        panels[0] if len(panels) == 1 else concat(*panels, columns=len(stages) if len(stages) <= 3 else 2, spacing=26)
    )


def _over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per behaviour, stage and estimate; over several training seeds their mean and range."""
    keys = ["behaviour", "unit_name", "stage", "name"]
    means = rows.groupby(keys, sort=False, dropna=False)["value"].agg(["mean", "min", "max", "count"]).reset_index()
    single = rows.drop_duplicates(keys).set_index(keys)[["low", "high"]].reset_index()
    merged = means.merge(single, on=keys).rename(columns={"mean": "value", "count": "seeds"})
    several = merged["seeds"] > 1
    merged["low"] = merged["low"].where(~several, merged["min"])
    merged["high"] = merged["high"].where(~several, merged["max"])
    return merged


def _panel(rows: pd.DataFrame, heading: str, names: list[str]) -> Any:
    shown = [name for name in names if name in set(rows["name"])]
    base = Chart(inline_rows(rows, "name", "value", "low", "high", "seeds"))
    unit = str(rows["unit_name"].iloc[0])
    x = alt.X("value:Q", title=f"effect ({unit})", axis=alt.Axis(tickCount=5))
    y = alt.Y("name:N", sort=shown, title="estimate")
    tooltip = [alt.Tooltip("name:N", title="estimate"), *number_tooltips("value", "low", "high"), "seeds:Q"]
    colour = alt.condition("datum.name == 'retraining'", alt.value(INK_COLOUR), alt.value(CATEGORY_COLOURS[0]))
    bars = base.mark_bar(opacity=0.85, height={"band": 0.7}).encode(x=x, y=y, color=colour, tooltip=tooltip)
    zero = Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=MUTED_COLOUR).encode(x="zero:Q")
    layers = [bars, zero]
    if rows["low"].notna().any():
        layers.append(base.mark_rule(strokeWidth=1.5, color=CATEGORY_COLOURS[1]).encode(x="low:Q", x2="high:Q", y=y))
    return overlay(*layers).properties(width=220, height=18 * len(shown) + 4, title=panel_title(heading))
