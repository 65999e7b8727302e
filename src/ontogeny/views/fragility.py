"""Fragility over training: the noise on the activations at which a probe breaks, beside its accuracy.

Left: accuracy of the logistic probe at each concept's best site. Right: its fragility there, the noise, in standard deviations of the
activations, at which its balanced accuracy falls to 0.6; more is sturdier, 0 is a probe that is no better without noise. Where the left
curve is flat and the right one moves, training still changes how far apart the classes are (arXiv:2606.11375). Bands are 95 % intervals.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import best_site_rows, mean_over_seeds, records_by_concept, select_rows, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._axes import stage_boundaries, step_axis, thin_checkpoints
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    dash_by_name,
    inline_rows,
    interval_band,
    missing_rows_reason,
    number_tooltips,
    panel_title,
)
from ontogeny.views._theme import CHART_WIDTH

title = "Fragility"
place = 9
together = True
needs = frozenset({"step", "concept", "site", "method", "metric", "value", "low", "high"})

METRICS = {
    "accuracy": ("accuracy (0–1)", alt.Scale(domain=[0, 1])),
    "fragility": ("noise (spreads of the activations)", alt.Scale(type="sqrt", domainMin=0)),
}
MOST = 60
select = rows_with_metrics(*METRICS, "best_site")
where = f"metric = 'best_site' or ({metric_condition(*METRICS)} and {{site:{'+'.join(METRICS)}}} and {{thin:{MOST}:fragility}})"


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(tidy_records(select(records)), make_timeline(records), MOST, "fragility")
    curves = [table.head(0)]
    for subject in records_by_concept(table):
        rows = select_rows(subject.rows, *METRICS)
        rows = rows[rows["method"].eq("logistic")]
        own = rows[rows["value"].notna() & rows["site"].isin(best_site_rows(subject.rows)["site"])]
        if own["metric"].eq("fragility").any():
            curves.append(mean_over_seeds(line.place(own), "metric").assign(name=subject.name))
    rows = pd.concat(curves)
    if rows.empty:
        missing = table[table["metric"].eq("fragility")]
        return blank_chart(title, missing_rows_reason(missing, "a fragility (concepts of two classes have one)"))
    names = list(rows["name"].unique())
    panels = [_panel(rows[rows["metric"].eq(metric)], *axis, names, line) for metric, axis in METRICS.items()]
    chart = alt.hconcat(*panels, spacing=30)
    return chart.properties(title=panel_title(fewer)) if fewer else chart


def _panel(rows: pd.DataFrame, axis_title: str, scale: alt.Scale, names: list[str], line: Timeline) -> Any:
    base = alt.Chart(inline_rows(rows, "name", "site", "n", "age", "stage", "step", "value", "low", "high"))
    base = base.encode(x=step_axis(line, ticks=6), color=colour_by_name(names))
    y = {"title": axis_title, "scale": scale, "axis": alt.Axis(tickCount=6)}
    tooltip = ["name:N", "site:N", "stage:N", *number_tooltips("step", digits=","), alt.Tooltip("n:Q", title="texts")]
    tooltip += number_tooltips("value", "low", "high")
    band = interval_band(base, rows, opacity=0.18).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    curve = base.mark_line(strokeWidth=2, point={"size": 14}).encode(
        y=alt.Y("value:Q", **y), strokeDash=dash_by_name(names), tooltip=tooltip
    )
    layers = [*stage_boundaries(line, height=200), band, curve]
    return alt.layer(*layers).properties(width=CHART_WIDTH / 2 - 90, height=200)
