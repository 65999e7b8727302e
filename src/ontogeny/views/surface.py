"""Does a probe read more than the words? Each concept's final score beside what surface baselines and controls reach.

A probe whose interval does not clear every open mark has shown nothing about the network: TF-IDF, text length and casing know
nothing of it, and a control task shows how much the probe could memorise. Where random directions score as well, the concept is there,
but the direction of the probe is not its own.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import FLOOR_LABELS, SCORE_METRICS, Finding, collect_findings
from ontogeny.findings.table import tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.views._chart_parts import blank_chart, facet_header, inline_rows, missing_rows_reason
from ontogeny.views._scores import score_axis_title
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR

title = "Probe against surface"
place = 4
needs = frozenset({"concept", "site", "metric", "control", "value", "low", "high"})

PROBE = "probe"
KINDS = [PROBE, *FLOOR_LABELS.values()]
COLOURS = [INK_COLOUR, *(CATEGORY_COLOURS[i] for i in (1, 4, 3, 2, 5, 0))]
SHAPES = ["diamond", "square", "triangle-up", "triangle-down", "circle", "cross", "M0,-1V1"]
"""A bar upright for random directions: a flat one would vanish on the line of the interval."""


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin([*SCORE_METRICS, "best_site", "cv_score"])]


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    found = [f for f in collect_findings(table, make_timeline(records)) if f.final.known]
    if not found:
        return blank_chart(
            title, missing_rows_reason(table[table["metric"].isin(SCORE_METRICS)], "a score at the last checkpoint")
        )
    rows = pd.concat([_rows(f) for f in found])
    names = [f.name for f in found]
    # Of the marks only the probe has a line, so only its lower end needs room; an R² may fall without end.
    least = min(float(rows["value"].min()), float(rows.loc[rows["kind"].eq(PROBE), "low"].min()))
    scale = alt.Scale(domain=[max(-1.0, min(0.4, least - 0.04)), 1], clamp=True, zero=False, nice=False)
    said = f"score at the last checkpoint: {score_axis_title(f.metric for f in found)}"
    axis = alt.Axis(format=".1f", grid=True, tickCount=6, title=said)
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
        tooltip=["name:N", "kind:N", *(alt.Tooltip(f"{c}:Q", format=".3f") for c in ("value", "low", "high"))],
    )
    ends = {"x": alt.X("low:Q", scale=scale, axis=axis), "x2": "high:Q"}
    span = base.transform_filter(f"datum.kind == '{PROBE}'").mark_rule(color=INK_COLOUR, strokeWidth=2).encode(**ends)
    said = "line: 95 % interval of the probe; random directions: their 97.5 % quantile"
    return alt.layer(span, marks).properties(
        width=CHART_WIDTH - 60, height=36 * len(names) + 10, title=facet_header(title, said)
    )


def _rows(finding: Finding) -> pd.DataFrame:
    readings = {PROBE: finding.final} | {FLOOR_LABELS[c]: floor for c, floor in finding.floors.items() if floor.known}
    return pd.DataFrame(
        [{"name": finding.name, "kind": k, "value": r.value, "low": r.low, "high": r.high} for k, r in readings.items()]
    )
