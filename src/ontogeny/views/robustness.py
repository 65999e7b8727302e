"""Robustness of a reading: how often a probe reads a held-out text and the same text perturbed differently, over training.

Left: the share of pairs read differently at each concept's best site, with its 95 % interval. Right: the accuracy lost on the perturbed
texts. A reading that is robust is near 0 in both; one that reads nothing can be near 0, too, so look at its score first.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import best_site_rows, mean_over_seeds, records_by_concept, select_rows, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views._axes import stage_boundaries, step_axis, thin_checkpoints
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    dash_by_name,
    facet_header,
    inline_rows,
    interval_band,
    missing_rows_reason,
)
from ontogeny.views._theme import CHART_WIDTH

title = "Robustness of a reading"
place = 9
needs = frozenset({"step", "concept", "site", "method", "metric", "value", "low", "high"})

METRICS = {"flip_rate": "pairs read differently (0–1)", "perturbed_drop": "accuracy lost (−1 to 1)"}
MOST = 60


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin([*METRICS, "best_site"])]


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(tidy_records(select(records)), make_timeline(records), MOST)
    curves = [table.head(0)]
    for subject in records_by_concept(table):
        best = best_site_rows(subject.rows)
        rows = select_rows(subject.rows, *METRICS)
        rows = rows[rows["value"].notna() & rows["site"].isin(best["site"]) & rows["method"].isin(best["method"])]
        curves.append(mean_over_seeds(line.place(rows), "metric").assign(name=subject.name))
    drawn = pd.concat(curves)
    if drawn.empty:
        return blank_chart(
            title, missing_rows_reason(table[table["metric"].isin(METRICS)], "a flip_rate (concepts of twins have one)")
        )
    names = list(drawn["name"].unique())
    panels = [_panel(drawn[drawn["metric"].eq(metric)], said, names, line) for metric, said in METRICS.items()]
    return alt.hconcat(*panels, spacing=30).properties(title=facet_header(title, fewer))


def _panel(rows: pd.DataFrame, said: str, names: list[str], line: Timeline) -> Any:
    base = alt.Chart(inline_rows(rows, "name", "site", "n", "age", "stage", "step", "value", "low", "high"))
    base = base.encode(x=step_axis(line, ticks=6), color=colour_by_name(names))
    y = {"title": said, "axis": alt.Axis(format=".2f", tickCount=6)}
    told = ["name:N", "site:N", "stage:N", alt.Tooltip("step:Q", format=","), alt.Tooltip("n:Q", title="pairs")]
    told += [alt.Tooltip(f"{c}:Q", format=".3f") for c in ("value", "low", "high")]
    band = interval_band(base, rows, opacity=0.18).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    curve = base.mark_line(strokeWidth=2, point={"size": 14}).encode(
        y=alt.Y("value:Q", **y), strokeDash=dash_by_name(names), tooltip=told
    )
    layers = [*stage_boundaries(line, height=200), band, curve]
    return alt.layer(*layers).properties(width=CHART_WIDTH / 2 - 90, height=200)
