"""Readable against answered right: when a probe reads a concept, and when the model answers its questions.

Blue: score of the probe at the concept's best site. Orange: share of questions for which the model finds the right answer more likely.
An upright line marks the step of the event; without one the event is censored. An R² has a panel of its own, since it has another range.
"""

from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import SCORE_METRICS, Finding, StepEstimate
from ontogeny.findings.selection import FINDING_ROWS
from ontogeny.findings.sentences import format_event
from ontogeny.findings.shared_findings import curve_findings
from ontogeny.findings.table import mean_over_seeds, select_rows, tidy_records
from ontogeny.findings.timeline import Timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._axes import stage_boundaries, step_axis
from ontogeny.views._chart_parts import inline_rows, interval_band, multiples_or_blank, number_tooltips, panel_title
from ontogeny.views._layout import Chart, overlay, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._scores import place_event, score_axis_minimum, score_axis_title, thin_curve
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, MUTED_COLOUR

title = "Readable against answered right"
place = 3
needs = frozenset({"step", "concept", "site", "metric", "value", "low", "high"})

_KEY = (
    LegendEntry("95 % interval of a curve", "band", MUTED_COLOUR, opacity=0.18),
    LegendEntry("step of the event", "upright", MUTED_COLOUR),
    LegendEntry("its 95 % interval", "cell", MUTED_COLOUR, opacity=0.3),
)
KINDS = ["readable: score of the probe", "answers: share right"]
EVENTS = ("emergence_step", "used_step", "readable_minus_used")
select = rows_with_metrics(*SCORE_METRICS, *EVENTS, "answer_accuracy", "best_site", "cv_score")
where = FINDING_ROWS


def draw(records: pd.DataFrame) -> Any:
    findings, line = curve_findings(records)
    panels = [_panel(f, used, line) for f in findings if len(used := _used(f, line))]
    rows = tidy_records(records[records["metric"].eq("answer_accuracy")])
    chart = multiples_or_blank(panels, title, rows, "the behaviour (answer_accuracy) beside a score")
    return with_legend(chart, *_KEY) if panels else chart


def _used(finding: Finding, line: Timeline) -> pd.DataFrame:
    rows = select_rows(finding.subject.rows, "answer_accuracy")
    return mean_over_seeds(line.place(rows[rows["value"].notna()]))


def _panel(finding: Finding, used: pd.DataFrame, line: Timeline) -> Any:
    parts = [thin_curve(finding.curve).assign(kind=KINDS[0]), thin_curve(used).assign(kind=KINDS[1])]
    label = score_axis_title([finding.metric])
    if finding.metric != "r2":
        low = float(pd.concat(parts)[["value", "low"]].min().min())
        chart = _curves(parts, _Frame(f"{label}, share right (0–1)", low, 160), finding, line)
        return chart.properties(title=_panel_title(finding))
    lows = [float(part[["value", "low"]].min().min()) for part in parts]
    score = _curves(parts[:1], _Frame(label, lows[0], 90), finding, line)
    share = _curves(parts[1:], _Frame("share right (0–1)", lows[1], 90), finding, line)
    return vconcat(score.properties(title=_panel_title(finding)), share, spacing=8)


@dataclass(frozen=True)
class _Frame:
    """The y axis of a panel."""

    title: str
    low: float
    height: float


def _curves(parts: list[pd.DataFrame], frame: _Frame, finding: Finding, line: Timeline) -> alt.LayerChart:
    curves = pd.concat(parts)
    domain = [score_axis_minimum([frame.low]), 1]
    y = {"type": "quantitative", "scale": alt.Scale(domain=domain, clamp=True, zero=False)}
    axis = alt.Axis(format=".1f", tickCount=5, title=frame.title)
    tooltip = ["kind:N", "stage:N", *number_tooltips("step", digits=","), *number_tooltips("value", "low", "high")]
    base = Chart(inline_rows(curves, "kind", "age", "stage", "step", "value", "low", "high"))
    base = base.encode(x=step_axis(line, ticks=5, brief=True), color=_colour())
    band = interval_band(base, curves, opacity=0.18).encode(y=alt.Y("low", axis=axis, **y), y2="high:Q")
    lines = base.mark_line(strokeWidth=2, point={"size": 14}).encode(y=alt.Y("value", axis=axis, **y), tooltip=tooltip)
    events = _events(finding, line)
    events = Chart(inline_rows(events[events["kind"].isin(curves["kind"])])).encode(color=_colour())
    span = events.mark_rect(opacity=0.3, strokeWidth=0).encode(x="low:Q", x2="high:Q")
    rule = events.mark_rule(strokeWidth=1.6).encode(x="age:Q", tooltip=["kind:N", alt.Tooltip("label:N", title="step")])
    layers = [*stage_boundaries(line, height=frame.height, names=False), span, band, rule, lines]
    return overlay(*layers).properties(width=CHART_WIDTH / 3 - 55, height=frame.height)


def _colour() -> alt.Color:
    scale = alt.Scale(domain=KINDS, range=[CATEGORY_COLOURS[0], CATEGORY_COLOURS[1]])
    legend = alt.Legend(
        title=None, orient="bottom", labelLimit=320, symbolType="stroke", symbolSize=250, symbolOpacity=1
    )
    return alt.Color("kind:N", scale=scale, legend=legend)


def _events(finding: Finding, line: Timeline) -> pd.DataFrame:
    events = zip(KINDS, (finding.emergence, finding.answers), strict=True)
    rows = [{"kind": kind, **placed} for kind, event in events if (placed := place_event(event, line))]
    return pd.DataFrame(rows, columns=["kind", "age", "label", "low", "high"])


def _panel_title(finding: Finding) -> alt.TitleParams:
    """The order of the two events, and when they are."""

    def step(event: StepEstimate | None) -> str:
        return "not measured" if event is None else format_event(event) if event.known else "censored"

    when = (f"readable {step(finding.emergence)}", f"answers right {step(finding.answers)}")
    return panel_title(f"{finding.name}: {_order(finding)}", *when)


def _order(finding: Finding) -> str:
    read, answers, gap = finding.emergence, finding.answers, finding.readable_minus_answers
    known = [event is not None and event.known for event in (read, answers)]
    if not all(known):
        return (
            "readable, answers not right"
            if known[0]
            else "answers right, not readable"
            if known[1]
            else "neither is shown"
        )
    if gap is not None and gap.known and (gap.high < 0 or gap.low > 0):
        return "readable before answers are right" if gap.value < 0 else "answers right before it is readable"
    if read and answers and read.stage != answers.stage:
        return f"readable in {read.stage}, answers right in {answers.stage}"
    return "order of the two not settled"
