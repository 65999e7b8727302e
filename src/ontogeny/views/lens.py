"""Lenses over training: how far each layer already holds the model's own output. One column for each lens, one line for each layer.

Top: share of tokens for which the lens names the model's own likeliest token. Below: divergence from the model's output, nats. A fitted
lens is scored on texts that it was not fitted on. Early layers are light.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import evenly_spread, mean_over_seeds, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._axes import stage_boundaries, step_axis, thin_checkpoints
from ontogeny.views._chart_parts import blank_chart, inline_rows, missing_rows_reason, number_tooltips, panel_title
from ontogeny.views._layout import Chart, hconcat, overlay, vconcat
from ontogeny.views._theme import CHART_WIDTH, ORDINAL_SCHEME

title = "Lenses"
place = 10
together = True
needs = frozenset({"step", "site", "layer", "method", "metric", "value"})

METRICS = {"lens_agreement": "tokens named alike (0–1)", "lens_kl": "divergence from the output (nats)"}
MOST, LAYERS = 60, 9
select = rows_with_metrics(*METRICS)
where = f"{metric_condition(*METRICS)} and {{thin:{MOST}:lens_agreement}}"


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(tidy_records(select(records)), make_timeline(records), MOST, "lens_agreement")
    rows = table[table["value"].notna() & table["layer"].notna()]
    if rows.empty:
        return blank_chart(title, missing_rows_reason(table, "a lens (ontogeny lens makes them)"))
    rows = mean_over_seeds(line.place(rows), "metric", "method", "site")
    rows = rows[rows["layer"].isin(evenly_spread(sorted(rows["layer"].unique()), LAYERS))]
    kinds = list(dict.fromkeys(rows["method"]))
    columns = []
    for kind in kinds:
        own = rows[rows["method"].eq(kind)]
        panels = [
            _panel(own[own["metric"].eq(m)], text, line) for m, text in METRICS.items() if own["metric"].eq(m).any()
        ]
        columns.append(vconcat(*panels, spacing=20, title=panel_title(f"{kind} lens", fewer)))
    return columns[0] if len(columns) == 1 else hconcat(*columns, spacing=30)


def _panel(rows: pd.DataFrame, axis_title: str, line: Timeline) -> Any:
    legend = alt.Legend(title="layer", orient="bottom", columns=9, symbolType="stroke", symbolSize=200)
    lines = Chart(inline_rows(rows, "site", "layer", "age", "stage", "step", "value", "low", "high"))
    lines = lines.mark_line(strokeWidth=1.8, point={"size": 14}).encode(
        x=step_axis(line, ticks=5, brief=True),
        y=alt.Y("value:Q", title=axis_title, axis=alt.Axis(tickCount=5)),
        color=alt.Color("layer:O", scale=alt.Scale(scheme=alt.SchemeParams(**ORDINAL_SCHEME)), legend=legend),
        detail="site:N",
        tooltip=["site:N", "stage:N", *number_tooltips("step", digits=","), *number_tooltips("value", "low", "high")],
    )
    return overlay(*stage_boundaries(line, height=150), lines).properties(width=CHART_WIDTH / 2 - 90, height=150)
