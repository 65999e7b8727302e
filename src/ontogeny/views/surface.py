"""Probe against surface: each concept's final score with the scores of surface baselines and controls.

A probe whose interval does not exceed every open mark gives no evidence about the network: TF-IDF, text length and casing use only the
text, and a control task shows how much the probe can memorise. If random directions score as high, the concept is readable, but not along a
specific direction.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import FLOOR_LABELS, SCORE_METRICS, Finding
from ontogeny.findings.selection import FINDING_ROWS
from ontogeny.findings.shared_findings import curve_findings
from ontogeny.findings.table import tidy_records
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import (
    blank_chart,
    facet_header,
    inline_rows,
    missing_rows_reason,
    number_tooltips,
    resolve_scales,
)
from ontogeny.views._layout import Chart, overlay, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._scores import score_axis_title
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR

title = "Probe against surface"
place = 4
together = True
needs = frozenset({"concept", "site", "metric", "control", "value", "low", "high"})

PROBE = "probe"
KINDS = [PROBE, *FLOOR_LABELS.values()]
COLOURS = [INK_COLOUR, *(CATEGORY_COLOURS[i] for i in (1, 4, 3, 2, 5, 0))]
SHAPES = ["diamond", "square", "triangle-up", "triangle-down", "circle", "cross", "M0,-1V1"]
"""An upright bar for random directions, since a flat one would be hidden by the line of the interval."""
select = rows_with_metrics(*SCORE_METRICS, "best_site", "cv_score")
where = FINDING_ROWS


def draw(records: pd.DataFrame) -> Any:
    findings = [f for f in curve_findings(records)[0] if f.final.known]
    if not findings:
        missing = tidy_records(records[records["metric"].isin(SCORE_METRICS)])
        return blank_chart(title, missing_rows_reason(missing, "a score at the last checkpoint"))
    shown = {kind for finding in findings for kind in _rows(finding)["kind"]}
    kinds = [kind for kind in KINDS if kind in shown]
    metrics = list(dict.fromkeys(f.metric for f in findings))
    blocks = [
        _block([f for f in findings if f.metric == metric], kinds, legend=metric == metrics[0]) for metric in metrics
    ]
    span = LegendEntry("95 % interval of the probe", "line")
    return with_legend(resolve_scales(vconcat(*blocks, spacing=24), color="independent", shape="independent"), span)


def _block(findings: list[Finding], kinds: list[str], *, legend: bool) -> alt.LayerChart:
    """The concepts with one metric."""
    rows = pd.concat([_rows(f) for f in findings])
    names = [f.name for f in findings]
    # Only the probe has an interval; an R² has no lower bound.
    least = min(float(rows["value"].min()), float(rows.loc[rows["kind"].eq(PROBE), "low"].min()))
    scale = alt.Scale(domain=[max(-1.0, min(0.4, least - 0.04)), 1], clamp=True, zero=False, nice=False)
    axis_title = f"score at the last checkpoint: {score_axis_title(f.metric for f in findings)}"
    axis = alt.Axis(format=".1f", grid=True, tickCount=6, title=axis_title)
    colours = alt.Scale(domain=kinds, range=[COLOURS[KINDS.index(kind)] for kind in kinds])
    shapes = alt.Scale(domain=kinds, range=[SHAPES[KINDS.index(kind)] for kind in kinds])
    x = alt.X("value:Q", scale=scale, axis=axis)
    y = alt.Y("name:N", sort=names, title="concept", axis=alt.Axis(grid=True, labelLimit=200, labelFontSize=12))
    base = Chart(inline_rows(rows)).encode(y=y)
    symbols = alt.Legend(title=None, orient="top", columns=7, symbolOpacity=1) if legend else None
    marks = base.mark_point(size=90, strokeWidth=2, opacity=1).encode(
        x=x,
        color=alt.Color("kind:N", scale=colours, legend=symbols),
        shape=alt.Shape("kind:N", scale=shapes, legend=symbols),
        fill=alt.condition(f"datum.kind == '{PROBE}'", alt.value(INK_COLOUR), alt.value("transparent")),
        tooltip=["name:N", "kind:N", *number_tooltips("value", "low", "high")],
    )
    ends = {"x": alt.X("low:Q", scale=scale, axis=axis), "x2": "high:Q"}
    span = base.transform_filter(f"datum.kind == '{PROBE}'").mark_rule(color=INK_COLOUR, strokeWidth=2).encode(**ends)
    heading = facet_header(_headline(findings), "random directions: their 97.5 % quantile")
    height = max(36 if len(names) <= 8 else 22, 22) * len(names) + 10
    return overlay(span, marks).properties(width=CHART_WIDTH - 60, height=height, title=heading)


def _headline(findings: list[Finding]) -> str:
    """How many concepts are read better than every baseline."""
    above = [
        f
        for f in findings
        if f.final.low > max((floor.value for floor in f.floors.values() if floor.known), default=-1)
    ]
    if len(findings) == 1:
        return f"{findings[0].name}: {'above' if above else 'not shown to be above'} every baseline"
    count = f"{len(above) or 'None'} of" if len(above) < len(findings) else "All"
    return f"{count} {len(findings)} concepts {'is' if len(above) < 2 else 'are'} read better than from every baseline"


def _rows(finding: Finding) -> pd.DataFrame:
    readings = {PROBE: finding.final} | {FLOOR_LABELS[c]: floor for c, floor in finding.floors.items() if floor.known}
    return pd.DataFrame(
        [{"name": finding.name, "kind": k, "value": r.value, "low": r.low, "high": r.high} for k, r in readings.items()]
    )
