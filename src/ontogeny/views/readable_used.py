"""Readable against used: when a probe reads a concept, and when the model's answers use it.

Blue: score of the probe at the concept's best site. Orange: share of questions for which the model finds the right answer more likely.
A line marks the step of the event, the shade its 95 % interval; without a line the event is censored.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import SCORE_METRICS, Finding, StepEstimate, collect_findings
from ontogeny.findings.selection import SCORES_AT_BEST_SITE, metric_condition
from ontogeny.findings.sentences import format_step_interval
from ontogeny.findings.table import mean_over_seeds, select_rows, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._axes import stage_boundaries, step_axis
from ontogeny.views._chart_parts import inline_rows, interval_band, multiples_or_blank, number_tooltips, panel_title
from ontogeny.views._scores import place_event, score_axis_minimum, score_axis_title
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH

title = "Readable against used"
place = 3
needs = frozenset({"step", "concept", "site", "metric", "value", "low", "high"})

KINDS = ["readable: score of the probe", "used: share answered right"]
EVENTS = ("emergence_step", "used_step", "readable_minus_used")
select = rows_with_metrics(*SCORE_METRICS, *EVENTS, "answer_accuracy", "best_site", "cv_score")
where = f"{metric_condition(*EVENTS, 'answer_accuracy', 'best_site')} or ({SCORES_AT_BEST_SITE})"


def draw(records: pd.DataFrame) -> Any:
    table, line = tidy_records(select(records)), make_timeline(records)
    panels = [_panel(f, used, line) for f in collect_findings(table, line) if len(used := _used(f, line))]
    rows = table[table["metric"].eq("answer_accuracy")]
    return multiples_or_blank(panels, title, rows, "the behaviour (answer_accuracy) beside a score")


def _used(finding: Finding, line: Timeline) -> pd.DataFrame:
    rows = select_rows(finding.subject.rows, "answer_accuracy")
    return mean_over_seeds(line.place(rows[rows["value"].notna()]))


def _panel(finding: Finding, used: pd.DataFrame, line: Timeline) -> Any:
    curves = pd.concat([finding.curve.assign(kind=KINDS[0]), used.assign(kind=KINDS[1])])
    domain = [score_axis_minimum([float(curves[["value", "low"]].min().min())]), 1]
    y = {"type": "quantitative", "scale": alt.Scale(domain=domain, clamp=True, zero=False)}
    axis = alt.Axis(format=".1f", tickCount=5, title=f"{score_axis_title([finding.metric])}, share right (0–1)")
    tooltip = ["kind:N", "stage:N", *number_tooltips("step", digits=","), *number_tooltips("value", "low", "high")]
    base = alt.Chart(inline_rows(curves, "kind", "age", "stage", "step", "value", "low", "high"))
    base = base.encode(x=step_axis(line, ticks=5, brief=True), color=_colour())
    band = interval_band(base, curves, opacity=0.18).encode(y=alt.Y("low", axis=axis, **y), y2="high:Q")
    lines = base.mark_line(strokeWidth=2, point={"size": 14}).encode(y=alt.Y("value", axis=axis, **y), tooltip=tooltip)
    events = alt.Chart(inline_rows(_events(finding, line))).encode(color=_colour())
    span = events.mark_rect(opacity=0.14, strokeWidth=0).encode(x="low:Q", x2="high:Q")
    rule = events.mark_rule(strokeWidth=1.6).encode(x="age:Q", tooltip=["kind:N", alt.Tooltip("label:N", title="step")])
    layers = [*stage_boundaries(line, height=160, names=False), span, band, rule, lines]
    return alt.layer(*layers).properties(width=CHART_WIDTH / 3 - 55, height=160, title=_panel_title(finding))


def _colour() -> alt.Color:
    scale = alt.Scale(domain=KINDS, range=[CATEGORY_COLOURS[0], CATEGORY_COLOURS[1]])
    legend = alt.Legend(
        title=None, orient="bottom", labelLimit=320, symbolType="stroke", symbolSize=250, symbolOpacity=1
    )
    return alt.Color("kind:N", scale=scale, legend=legend)


def _events(finding: Finding, line: Timeline) -> pd.DataFrame:
    events = zip(KINDS, (finding.emergence, finding.used), strict=True)
    rows = [{"kind": kind, **placed} for kind, event in events if (placed := place_event(event, line))]
    return pd.DataFrame(rows, columns=["kind", "age", "label", "low", "high"])


def _panel_title(finding: Finding) -> alt.TitleParams:
    def step(event: StepEstimate | None) -> str:
        return "not measured" if event is None else format_step_interval(event) if event.known else "censored"

    return panel_title(finding.name, f"readable {step(finding.emergence)}", f"used {step(finding.used)}")
