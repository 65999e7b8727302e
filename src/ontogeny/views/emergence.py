"""Emergence: the score of each concept over training at its best site, with 95 % band, floors and emergence step.

Top: all concepts in one frame. Below: each concept (black) with its floors: the scores of surface baselines, a control task, the untrained
model and random directions. A vertical line marks the emergence step, the shade its 95 % interval; without a line the emergence is
censored. A curve that stays at its floors is no evidence for the concept.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import FLOOR_LABELS, Finding
from ontogeny.findings.sentences import SCORE_LABELS, format_interval, format_score, format_step_interval
from ontogeny.findings.timeline import Timeline
from ontogeny.views._axes import stage_boundaries, step_axis
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    dash_by_name,
    facet_header,
    inline_rows,
    interval_band,
    panel_title,
    small_multiples,
)
from ontogeny.views._scores import (
    LOWEST_DRAWN_SCORE,
    SCORE_ROWS,
    findings_on_timeline,
    place_event,
    score_axis_minimum,
    score_axis_title,
    score_rows,
)
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR

title = "Emergence"
place = 1
needs = frozenset({"step", "concept", "site", "metric", "control", "value", "low", "high"})

FLOOR_LOOKS = {
    "surface_tfidf": (CATEGORY_COLOURS[1], [6, 2]),
    "surface_length": (CATEGORY_COLOURS[4], [2, 2]),
    "surface_casing": (CATEGORY_COLOURS[3], [1, 3]),
    "control_task": (CATEGORY_COLOURS[2], [8, 3, 2, 3]),
    "untrained": (CATEGORY_COLOURS[5], [3, 3]),
    "random_direction": (CATEGORY_COLOURS[0], [5, 4]),
}
"""Colour and dash of each floor."""
select, where = score_rows, SCORE_ROWS


def draw(records: pd.DataFrame) -> Any:
    findings, line, reason = findings_on_timeline(records)
    if reason:
        return blank_chart(title, reason)
    domain = _domain(findings)
    own = {f.metric: _domain([g for g in findings if g.metric == f.metric]) for f in findings}
    shown = [control for control in FLOOR_LABELS if any(control in f.floors for f in findings)]
    small = small_multiples([_panel(f, line, own[f.metric], shown) for f in findings])
    return alt.vconcat(_overview(findings, line, domain), small, spacing=36).resolve_scale(
        color="independent", strokeDash="independent"
    )


def _overview(findings: list[Finding], line: Timeline, domain: list[float]) -> Any:
    names = [f.name for f in findings]
    curves = pd.concat([_curve(f) for f in findings])
    events = _events(findings, line)
    pick = alt.selection_point(fields=["name"], bind="legend")
    shade = alt.condition(pick, alt.value(1.0), alt.value(0.15))
    colour = colour_by_name(names, title="concept (click to single out)")
    base = alt.Chart(inline_rows(curves)).encode(x=step_axis(line), color=colour, opacity=shade)
    lines = base.mark_line(strokeWidth=2.2).encode(y=_score(findings, domain), strokeDash=dash_by_name(names))
    dots = base.mark_circle(size=26).encode(y=_score(findings, domain), tooltip=_tooltip())
    marks = alt.Chart(inline_rows(events)).encode(color=colour, opacity=shade)
    spans = marks.mark_rule(strokeWidth=2.2).encode(x="low:Q", x2="high:Q", y=_score(findings, domain, "score"))
    points = marks.mark_point(filled=True, size=110, shape="diamond", stroke="white", strokeWidth=1)
    points = points.encode(
        x="age:Q",
        y=_score(findings, domain, "score"),
        tooltip=["name:N", alt.Tooltip("label:N", title="emerges at step")],
    )
    layers = [*stage_boundaries(line, height=280), lines.add_params(pick), dots, spans, points]
    return alt.layer(*layers).properties(
        width=CHART_WIDTH - 120,
        height=280,
        title=facet_header(
            "All concepts, each at its best site",
            "◆ emergence step with its 95 % interval, drawn on the curve; concepts without ◆ have no emergence that could be shown",
            _clipped(findings),
        ),
    )


def _clipped(findings: list[Finding]) -> str:
    below = ", ".join(f.name for f in findings if f.curve["value"].lt(LOWEST_DRAWN_SCORE).any())
    return f"below {format_score(LOWEST_DRAWN_SCORE)}, and drawn there, at some checkpoints: {below}" if below else ""


def _panel(finding: Finding, line: Timeline, domain: list[float], shown: list[str]) -> Any:
    base = alt.Chart(inline_rows(_curve(finding))).encode(x=step_axis(line, ticks=5, brief=True))
    colour = INK_COLOUR if len(finding.curve) == 1 else CATEGORY_COLOURS[0]
    band = interval_band(base, finding.curve, opacity=0.22, color=colour).encode(
        y=_score([finding], domain, "low"), y2="high:Q"
    )
    curve = base.mark_line(strokeWidth=2, color=INK_COLOUR, point={"size": 14, "color": INK_COLOUR})
    curve = curve.encode(y=_score([finding], domain), tooltip=_tooltip())
    names = [FLOOR_LABELS[control] for control in shown]
    legend = alt.Legend(title="floors", orient="bottom", direction="horizontal", columns=6, symbolSize=300)
    colours = alt.Scale(domain=names, range=[FLOOR_LOOKS[control][0] for control in shown])
    dashes = alt.Scale(domain=names, range=[FLOOR_LOOKS[control][1] for control in shown])
    floors = alt.Chart(inline_rows(_floor_lines(finding, line))).mark_line(strokeWidth=1.4)
    floors = floors.encode(
        x="age:Q",
        y=_score([finding], domain),
        color=alt.Color("floor:N", scale=colours, legend=legend),
        strokeDash=alt.StrokeDash("floor:N", scale=dashes, legend=legend),
        tooltip=[alt.Tooltip("floor:N"), alt.Tooltip("value:Q", format=".2f")],
    )
    event = alt.Chart(inline_rows(_events([finding], line)))
    span = event.mark_rect(opacity=0.16, color=CATEGORY_COLOURS[0]).encode(x="low:Q", x2="high:Q")
    rule = event.mark_rule(color=CATEGORY_COLOURS[0], strokeWidth=1.6).encode(
        x="age:Q", tooltip=[alt.Tooltip("label:N", title="emerges at step")]
    )
    layers = [*stage_boundaries(line, height=150, names=False), span, band, floors, rule, curve]
    return alt.layer(*layers).properties(width=CHART_WIDTH / 3 - 55, height=150, title=_panel_title(finding))


def _panel_title(finding: Finding) -> alt.TitleParams:
    event = finding.emergence
    when = "no emergence" if event and not event.known else "emergence not measured"
    if event and event.known:
        when = f"step {format_step_interval(event)}"
    score = f"{SCORE_LABELS[finding.metric]} {format_interval(finding.final)}"
    return panel_title(f"{finding.name} · {finding.site}", score, when)


def _curve(finding: Finding) -> pd.DataFrame:
    curve = finding.curve.assign(name=finding.name, at=finding.site)
    return curve[["name", "at", "age", "stage", "step", "tokens", "value", "low", "high", "n"]]


def _floor_lines(finding: Finding, line: Timeline) -> pd.DataFrame:
    """Floors as curves if they were measured at several checkpoints, else as levels."""
    rows = finding.subject.rows
    rows = rows[rows["metric"].eq(finding.metric) & rows["site"].isin([finding.site, ""])]
    ends = [float(line.moments["age_low"].min()), float(line.moments["age_high"].max())]
    parts = []
    for control, name in FLOOR_LABELS.items():
        if control not in finding.floors:
            continue
        own = rows[rows["control"].eq(control) & rows["step"].notna()]
        own = own[own["method"].eq(finding.method)] if own["method"].eq(finding.method).any() else own
        placed = line.place(own).groupby("age").mean(numeric_only=True).reset_index()
        if len(placed) > 1:
            level = placed["high"].fillna(placed["value"]) if control == "random_direction" else placed["value"]
            parts.append(pd.DataFrame({"age": placed["age"], "value": level, "floor": name}))
        else:
            parts.append(pd.DataFrame({"age": ends, "value": [finding.floors[control].value] * 2, "floor": name}))
    return pd.concat(parts) if parts else pd.DataFrame(columns=["age", "value", "floor"])


def _events(findings: list[Finding], line: Timeline) -> pd.DataFrame:
    """Known emergence steps on the axis, at the height of the curve."""
    rows = [
        {"name": finding.name, "score": _height(finding, event["age"]), **event}
        for finding in findings
        if (event := place_event(finding.emergence, line))
    ]
    return pd.DataFrame(rows, columns=["name", "age", "low", "high", "label", "score"])


def _height(finding: Finding, age: float) -> float:
    curve = finding.curve[finding.curve["value"].notna()]
    before, after = curve[curve["age"].le(age)].tail(1), curve[curve["age"].gt(age)].head(1)
    if before.empty or after.empty:
        return float((before if after.empty else after)["value"].iloc[0])
    share = (age - before["age"].iloc[0]) / (after["age"].iloc[0] - before["age"].iloc[0])
    return float(before["value"].iloc[0] + share * (after["value"].iloc[0] - before["value"].iloc[0]))


def _domain(findings: list[Finding]) -> list[float]:
    floors = (floor.value for f in findings for floor in f.floors.values())
    return [score_axis_minimum([*(float(f.curve[["value", "low"]].min().min()) for f in findings), *floors]), 1.0]


def _score(findings: list[Finding], domain: list[float], field: str = "value") -> alt.Y:
    """The y axis of every layer: a layer with another scale would add zero to the axis."""
    scale = alt.Scale(domain=domain, clamp=True, zero=False, nice=False)
    axis = alt.Axis(format=".1f", tickCount=5, title=score_axis_title(f.metric for f in findings))
    return alt.Y(field, type="quantitative", scale=scale, axis=axis)


def _tooltip() -> list[alt.Tooltip]:
    formats = {"value": ".3f", "low": ".3f", "high": ".3f", "step": ",", "tokens": ".3s"}
    names = [alt.Tooltip("name:N", title="concept"), alt.Tooltip("at:N", title="site"), alt.Tooltip("stage:N")]
    return names + [alt.Tooltip(f"{c}:Q", format=f) for c, f in formats.items()]
