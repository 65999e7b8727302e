"""Probe against surface: each concept's final score with the scores of surface baselines and controls.

A probe whose interval does not exceed every open mark is no evidence about the network: TF-IDF, text length and casing use only the text,
and a control task shows how much the probe can memorise. If random directions score as high, the concept is readable, but not along a
specific direction.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import FLOOR_LABELS, SCORE_METRICS, Finding, collect_findings
from ontogeny.findings.selection import SCORES_AT_BEST_SITE
from ontogeny.findings.table import tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import blank_chart, facet_header, inline_rows, missing_rows_reason, number_tooltips
from ontogeny.views._scores import score_axis_title
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR

title = "Probe against surface"
place = 4
needs = frozenset({"concept", "site", "metric", "control", "value", "low", "high"})

PROBE = "probe"
KINDS = [PROBE, *FLOOR_LABELS.values()]
COLOURS = [INK_COLOUR, *(CATEGORY_COLOURS[i] for i in (1, 4, 3, 2, 5, 0))]
SHAPES = ["diamond", "square", "triangle-up", "triangle-down", "circle", "cross", "M0,-1V1"]
"""An upright bar for random directions, since a flat one would be hidden by the line of the interval."""
select = rows_with_metrics(*SCORE_METRICS, "best_site", "cv_score")
where = f"metric = 'best_site' or ({SCORES_AT_BEST_SITE})"


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    findings = [f for f in collect_findings(table, make_timeline(records)) if f.final.known]
    if not findings:
        missing = table[table["metric"].isin(SCORE_METRICS)]
        return blank_chart(title, missing_rows_reason(missing, "a score at the last checkpoint"))
    rows = pd.concat([_rows(f) for f in findings])
    names = [f.name for f in findings]
    # Only the probe has an interval; an R² has no lower bound.
    least = min(float(rows["value"].min()), float(rows.loc[rows["kind"].eq(PROBE), "low"].min()))
    scale = alt.Scale(domain=[max(-1.0, min(0.4, least - 0.04)), 1], clamp=True, zero=False, nice=False)
    axis_title = f"score at the last checkpoint: {score_axis_title(f.metric for f in findings)}"
    axis = alt.Axis(format=".1f", grid=True, tickCount=6, title=axis_title)
    shown = [kind for kind in KINDS if kind in set(rows["kind"])]
    colours = alt.Scale(domain=shown, range=[COLOURS[KINDS.index(kind)] for kind in shown])
    shapes = alt.Scale(domain=shown, range=[SHAPES[KINDS.index(kind)] for kind in shown])
    x = alt.X("value:Q", scale=scale, axis=axis)
    y = alt.Y("name:N", sort=names, title="concept", axis=alt.Axis(grid=True, labelLimit=200, labelFontSize=12))
    base = alt.Chart(inline_rows(rows)).encode(y=y)
    legend = alt.Legend(title=None, orient="top", columns=7, symbolOpacity=1)
    marks = base.mark_point(size=90, strokeWidth=2, opacity=1).encode(
        x=x,
        color=alt.Color("kind:N", scale=colours, legend=legend),
        shape=alt.Shape("kind:N", scale=shapes, legend=legend),
        fill=alt.condition(f"datum.kind == '{PROBE}'", alt.value(INK_COLOUR), alt.value("transparent")),
        tooltip=["name:N", "kind:N", *number_tooltips("value", "low", "high")],
    )
    ends = {"x": alt.X("low:Q", scale=scale, axis=axis), "x2": "high:Q"}
    span = base.transform_filter(f"datum.kind == '{PROBE}'").mark_rule(color=INK_COLOUR, strokeWidth=2).encode(**ends)
    heading = facet_header(title, "line: 95 % interval of the probe; random directions: their 97.5 % quantile")
    return alt.layer(span, marks).properties(width=CHART_WIDTH - 60, height=36 * len(names) + 10, title=heading)


def _rows(finding: Finding) -> pd.DataFrame:
    readings = {PROBE: finding.final} | {FLOOR_LABELS[c]: floor for c, floor in finding.floors.items() if floor.known}
    return pd.DataFrame(
        [{"name": finding.name, "kind": k, "value": r.value, "low": r.low, "high": r.high} for k, r in readings.items()]
    )
