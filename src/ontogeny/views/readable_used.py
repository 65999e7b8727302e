"""Readable against used: when a probe can read a concept, and when the model's answers show that it uses it.

Blue: score of the probe at the concept's best site. Orange: share of questions whose right answer the model finds likelier.
Each line marks the step of its event, the shade around it the 95 % interval; without a line the event is censored.
"""

import math
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import SCORE_METRICS, Finding, StepEstimate, collect_findings
from ontogeny.findings.sentences import format_step_interval
from ontogeny.findings.table import mean_over_seeds, select_rows, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views._axes import stage_boundaries, step_axis
from ontogeny.views._chart_parts import (
    blank_chart,
    inline_rows,
    interval_band,
    missing_rows_reason,
    panel_title,
    small_multiples,
)
from ontogeny.views._scores import score_axis_minimum, score_axis_title
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH

title = "Readable against used"
place = 3
needs = frozenset({"step", "concept", "site", "metric", "value", "low", "high"})

KINDS = ["readable: score of the probe", "used: share answered right"]
EVENTS = ("emergence_step", "used_step", "readable_minus_used")


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin([*SCORE_METRICS, *EVENTS, "answer_accuracy", "best_site", "cv_score"])]


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(records)
    drawn = [_panel(f, used, line) for f in collect_findings(table, line) if len(used := _used(f, line))]
    if not drawn:
        return blank_chart(
            title,
            missing_rows_reason(
                table[table["metric"].eq("answer_accuracy")], "the behaviour (answer_accuracy) beside a score"
            ),
        )
    return small_multiples(drawn)


def _used(finding: Finding, line: Timeline) -> pd.DataFrame:
    rows = select_rows(finding.subject.rows, "answer_accuracy")
    return mean_over_seeds(line.place(rows[rows["value"].notna()]))


def _panel(finding: Finding, used: pd.DataFrame, line: Timeline) -> Any:
    curves = pd.concat([finding.curve.assign(kind=KINDS[0]), used.assign(kind=KINDS[1])])
    y = {
        "type": "quantitative",
        "scale": alt.Scale(
            domain=[score_axis_minimum([float(curves[["value", "low"]].min().min())]), 1], clamp=True, zero=False
        ),
    }
    axis = alt.Axis(format=".1f", tickCount=5, title=f"{score_axis_title([finding.metric])}, share right (0–1)")
    told = ["kind:N", "stage:N", alt.Tooltip("step:Q", format=",")]
    told += [alt.Tooltip(f"{c}:Q", format=".3f") for c in ("value", "low", "high")]
    base = alt.Chart(inline_rows(curves, "kind", "age", "stage", "step", "value", "low", "high"))
    base = base.encode(x=step_axis(line, ticks=5, brief=True), color=_colour())
    band = interval_band(base, curves, opacity=0.18).encode(y=alt.Y("low", axis=axis, **y), y2="high:Q")
    lines = base.mark_line(strokeWidth=2, point={"size": 14}).encode(y=alt.Y("value", axis=axis, **y), tooltip=told)
    events = alt.Chart(inline_rows(_events(finding, line))).encode(color=_colour())
    span = events.mark_rect(opacity=0.14, strokeWidth=0).encode(x="low:Q", x2="high:Q")
    rule = events.mark_rule(strokeWidth=1.6).encode(x="age:Q", tooltip=["kind:N", alt.Tooltip("said:N", title="step")])
    named = panel_title(finding.name)
    named.subtitle = _said(finding)
    layers = [*stage_boundaries(line, height=160, names=False), span, band, rule, lines]
    return alt.layer(*layers).properties(width=CHART_WIDTH / 3 - 55, height=160, title=named)


def _colour() -> alt.Color:
    scale = alt.Scale(domain=KINDS, range=[CATEGORY_COLOURS[0], CATEGORY_COLOURS[1]])
    legend = alt.Legend(
        title=None, orient="bottom", labelLimit=320, symbolType="stroke", symbolSize=250, symbolOpacity=1
    )
    return alt.Color("kind:N", scale=scale, legend=legend)


def _events(finding: Finding, line: Timeline) -> pd.DataFrame:
    rows = []
    for kind, event in zip(KINDS, (finding.emergence, finding.used), strict=True):
        if event is not None and event.known:
            age, low, high = (line.age(event.stage, step) for step in (event.step, event.low, event.high))
            ends = {"low": age if math.isnan(low) else low, "high": age if math.isnan(high) else high}
            rows.append({"kind": kind, "age": age, "said": format_step_interval(event), **ends})
    return pd.DataFrame(rows, columns=["kind", "age", "said", "low", "high"])


def _said(finding: Finding) -> str:
    def step(event: StepEstimate | None) -> str:
        return "not measured" if event is None else format_step_interval(event) if event.known else "censored"

    return f"readable {step(finding.emergence)} · used {step(finding.used)}"
