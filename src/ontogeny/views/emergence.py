"""Emergence: the score of each concept over training at its best site, with 95 % band, floors and emergence step.

Top: all concepts in one frame; more than eight are rows of colour. Below: each concept with its floors, grey for scores from the text
alone, black for a control task, the untrained model and random directions. Without a diamond or an upright line the emergence is censored.
A curve that stays at its floors gives no evidence for the concept. Last: the losses that the trainer logged, if there is a log.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import CHANCE_SCORES, FLOOR_LABELS, Finding
from ontogeny.findings.selection import FINDING_ROWS
from ontogeny.findings.sentences import SCORE_LABELS, format_event, format_interval, format_score, run_headline
from ontogeny.findings.timeline import LOSS_METRICS, Timeline
from ontogeny.views._axes import stage_boundaries, step_axis
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    dash_by_name,
    facet_header,
    inline_rows,
    interval_band,
    panel_title,
    resolve_scales,
    small_multiples,
)
from ontogeny.views._layout import Chart, overlay, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._scores import (
    LOWEST_DRAWN_SCORE,
    findings_on_timeline,
    place_event,
    score_axis_minimum,
    score_axis_title,
    score_rows,
    thin_curve,
)
from ontogeny.views._theme import (
    CHART_WIDTH,
    INK_COLOUR,
    MUTED_COLOUR,
    SEAMLESS_CELLS,
    SEQUENTIAL_SCHEME,
    colour_map,
)

title = "Emergence"
place = 1
needs = frozenset({"step", "concept", "site", "metric", "control", "value", "low", "high"})

FLOOR_LOOKS = {
    "surface_tfidf": (MUTED_COLOUR, [6, 2]),
    "surface_length": (MUTED_COLOUR, [2, 2]),
    "surface_casing": (MUTED_COLOUR, [1, 3]),
    "control_task": (INK_COLOUR, [8, 3, 2, 3]),
    "untrained": (INK_COLOUR, [3, 3]),
    "random_direction": (INK_COLOUR, [5, 4]),
}
"""Colour and dash of each floor."""
_MOST_DOTS = 60
"""More checkpoints have no dots, which would hide the line."""
MOST_LINES = 8
"""More concepts are rows of colour: so many lines in one frame cannot be followed."""
where = FINDING_ROWS


def select(records: pd.DataFrame) -> pd.DataFrame:
    """Rows of scores, events and training losses."""
    return pd.concat([score_rows(records), records[records["metric"].isin(LOSS_METRICS)]])


def draw(records: pd.DataFrame) -> Any:
    findings, line, reason = findings_on_timeline(records)
    if reason:
        return blank_chart(title, reason)
    metrics = list(dict.fromkeys(f.metric for f in findings))
    colours = dict(zip(map(_name, findings), _colours(findings), strict=True))
    several = len(metrics) > 1
    blocks = [_overview([f for f in findings if f.metric == m], line, colours, several) for m in metrics]
    own = {metric: _domain([f for f in findings if f.metric == metric]) for metric in metrics}
    shown = [control for control in FLOOR_LABELS if any(control in f.floors for f in findings)]
    panels = [_panel(f, line, own[f.metric], shown, colours[f.name]) for f in findings]
    one = colours[findings[0].name] if len(findings) == 1 else MUTED_COLOUR
    below = with_legend(
        small_multiples(panels),
        LegendEntry("score", "line", one),
        LegendEntry("its 95 % interval", "band", one, opacity=0.22),
        LegendEntry("emergence step", "upright", one),
        LegendEntry("its 95 % interval", "cell", one, opacity=0.3),
    )
    charts = [*blocks, below, *_losses(records, line)]
    return resolve_scales(vconcat(*charts, spacing=36), color="independent", strokeDash="independent")


def draw_overview(records: pd.DataFrame) -> Any:
    """The concepts of each metric in one frame."""
    findings, line, reason = findings_on_timeline(records)
    if reason:
        return blank_chart(title, reason)
    metrics = list(dict.fromkeys(f.metric for f in findings))
    colours = dict(zip(map(_name, findings), _colours(findings), strict=True))
    own = [[f for f in findings if f.metric == metric] for metric in metrics]
    blocks = [_overview(several, line, colours, len(metrics) > 1) for several in own]
    return resolve_scales(vconcat(*blocks, spacing=36), color="independent", strokeDash="independent")


def _name(finding: Finding) -> str:
    return finding.name


def _colours(findings: Sequence[Finding]) -> list[str]:
    """A colour for each concept if they are lines in one frame, else ink for all."""
    few = len(findings) <= MOST_LINES
    return colour_map(list(map(_name, findings))) if few else [INK_COLOUR] * len(findings)


def _overview(findings: list[Finding], line: Timeline, colours: Mapping[str, str], several: bool) -> Any:
    heading = facet_header(_headline(findings, several), *_key(findings), _clipped(findings))
    chart = _lines(findings, line, colours) if len(findings) <= MOST_LINES else _strips(findings, line)
    return chart.properties(title=heading)


def _headline(findings: list[Finding], several: bool) -> str:
    """How many concepts emerge, and which first."""
    label = SCORE_LABELS[findings[0].metric]
    if len(findings) == 1:
        return f"{findings[0].name}: {_when(findings[0])}"
    kind = f"concepts with {label}" if several else "concepts"
    return run_headline(findings, kind) or f"{label} of each concept at its best site"


def _key(findings: list[Finding]) -> list[str]:
    marked = "on the curve" if len(findings) <= MOST_LINES else "on its row"
    key = f"◆ emergence step with its 95 % interval, {marked}; a concept without ◆ is not shown to emerge"
    return [key] if any(f.emergence is not None for f in findings) else []


def _lines(findings: list[Finding], line: Timeline, colours: Mapping[str, str]) -> alt.LayerChart:
    domain = _domain(findings)
    names = [f.name for f in findings]
    curves = pd.concat([_curve(f) for f in findings])
    pick = alt.selection_point(name=f"pick_{findings[0].metric}", fields=["name"], bind="legend")
    shade = alt.condition(pick, alt.value(1.0), alt.value(0.15))
    colour = colour_by_name(names, title="concept (click to single out)", colours=[colours[name] for name in names])
    base = Chart(inline_rows(curves)).encode(x=step_axis(line), color=colour, opacity=shade)
    lines = base.mark_line(strokeWidth=2.2).encode(y=_score(findings, domain), strokeDash=dash_by_name(names))
    crowded = max(len(f.curve) for f in findings) > _MOST_DOTS
    dots = base.mark_circle(size=26, **({"fillOpacity": 0, "strokeOpacity": 0} if crowded else {})).encode(
        y=_score(findings, domain), tooltip=_tooltip()
    )
    marks = Chart(inline_rows(_events(findings, line))).encode(color=colour, opacity=shade)
    spans = marks.mark_rule(strokeWidth=2.2).encode(x="low:Q", x2="high:Q", y=_score(findings, domain, "score"))
    points = marks.mark_point(filled=True, size=110, shape="diamond", stroke="white", strokeWidth=1)
    points = points.encode(x="age:Q", y=_score(findings, domain, "score"), tooltip=_event_tooltip())
    layers = [*stage_boundaries(line, height=280), lines.add_params(pick), dots, spans, points]
    return overlay(*layers).properties(width=CHART_WIDTH - 120, height=280)


def _strips(findings: list[Finding], line: Timeline) -> alt.LayerChart:
    """A row for each concept, in the order of emergence."""
    metric = findings[0].metric
    order = {stage.name: i for i, stage in enumerate(line.stages)}

    def key(finding: Finding) -> tuple[bool, int, float]:
        event = finding.emergence
        known = event is not None and event.known
        return (not known, order.get(event.stage, 0) if event else 0, event.step if known and event else 0.0)

    names = [f.name for f in sorted(findings, key=key)]
    cells = pd.concat([thin_curve(f.curve, 160).assign(name=f.name, at=f.site) for f in findings])
    y = alt.Y("name:N", sort=names, title="concept", scale=alt.Scale(domain=names), axis=alt.Axis(labelLimit=160))
    scale = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[CHANCE_SCORES[metric], 1], clamp=True)
    legend = alt.Legend(title=SCORE_LABELS[metric], orient="right", gradientLength=160)
    columns = ("name", "at", "stage", "step", "tokens", "value", "low", "high", "age_low", "age_high")
    squares = Chart(inline_rows(cells, *columns)).mark_rect(x2Offset=SEAMLESS_CELLS["x2Offset"])
    squares = squares.encode(
        x=step_axis(line, field="age_low"),
        x2="age_high:Q",
        y=y,
        color=alt.Color("value:Q", scale=scale, legend=legend),
        tooltip=_tooltip(),
    )
    marks = Chart(inline_rows(_events(findings, line))).encode(y=y)
    spans = marks.mark_rule(strokeWidth=2, color=INK_COLOUR).encode(x="low:Q", x2="high:Q")
    points = marks.mark_point(filled=True, size=70, shape="diamond", color=INK_COLOUR, stroke="white", strokeWidth=1)
    points = points.encode(x="age:Q", tooltip=_event_tooltip())
    layers = [squares, *stage_boundaries(line, height=0), spans, points]
    return overlay(*layers).properties(width=CHART_WIDTH - 200, height=max(16 * len(names), 120))


def _losses(records: pd.DataFrame, line: Timeline) -> list[Any]:
    """The losses that the trainer logged, on the same time axis; nothing without a log."""
    first = {stage.name: stage.steps[0] for stage in line.stages}
    rows = records[records["metric"].isin(LOSS_METRICS) & records["value"].notna() & records["step"].notna()]
    rows = rows[
        [stage in first and step >= first[stage] for stage, step in zip(rows["stage"], rows["step"], strict=True)]
    ]
    if rows.empty:
        return []
    ages = [line.age(str(stage), float(step)) for stage, step in zip(rows["stage"], rows["step"], strict=True)]
    names = rows["metric"].map({"train_loss": "training texts", "eval_loss": "held-out texts"})
    placed = rows.assign(age=ages, name=names).sort_values("age", kind="stable")
    curves = pd.concat([thin_curve(own) for _, own in placed.groupby(["stage", "name"], sort=False)])
    columns = ("age", "value", "name", "stage", "step")
    tooltip = [
        "name:N",
        "stage:N",
        alt.Tooltip("step:Q", format=","),
        alt.Tooltip("value:Q", title="loss", format=".3f"),
    ]
    curve = Chart(inline_rows(curves, *columns)).mark_line(strokeWidth=1.6, point={"size": 12})
    curve = curve.encode(
        x=step_axis(line),
        y=alt.Y("value:Q", title="loss (nats per token)", scale=alt.Scale(zero=False)),
        color=colour_by_name(list(dict.fromkeys(curves["name"])), title="loss on"),
        detail="stage:N",
        tooltip=tooltip,
    )
    layers = [*stage_boundaries(line, height=140, names=False), curve]
    heading = facet_header("Loss that the trainer logged")
    return [overlay(*layers).properties(width=CHART_WIDTH - 120, height=140, title=heading)]


def _event_tooltip() -> list[Any]:
    return ["name:N", alt.Tooltip("label:N", title="emerges at step")]


def _clipped(findings: list[Finding]) -> str:
    below = ", ".join(f.name for f in findings if f.curve["value"].lt(LOWEST_DRAWN_SCORE).any())
    return f"below {format_score(LOWEST_DRAWN_SCORE)}, and drawn there, at some checkpoints: {below}" if below else ""


def _panel(finding: Finding, line: Timeline, domain: list[float], shown: list[str], colour: str) -> Any:
    base = Chart(inline_rows(_curve(finding))).encode(x=step_axis(line, ticks=5, brief=True))
    band = interval_band(base, finding.curve, opacity=0.22, color=colour).encode(
        y=_score([finding], domain, "low"), y2="high:Q"
    )
    point = {"size": 14, "color": colour} if len(finding.curve) <= _MOST_DOTS else False
    curve = base.mark_line(strokeWidth=2, color=colour, point=point)
    curve = curve.encode(y=_score([finding], domain), tooltip=_tooltip())
    names = [FLOOR_LABELS[control] for control in shown]
    legend = alt.Legend(title="floors", orient="bottom", direction="horizontal", columns=6, symbolSize=300)
    colours = alt.Scale(domain=names, range=[FLOOR_LOOKS[control][0] for control in shown])
    dashes = alt.Scale(domain=names, range=[FLOOR_LOOKS[control][1] for control in shown])
    floors = Chart(inline_rows(_floor_lines(finding, line))).mark_line(strokeWidth=1.4)
    floors = floors.encode(
        x="age:Q",
        y=_score([finding], domain),
        color=alt.Color("floor:N", scale=colours, legend=legend),
        strokeDash=alt.StrokeDash("floor:N", scale=dashes, legend=legend),
        tooltip=[alt.Tooltip("floor:N"), alt.Tooltip("value:Q", format=".2f")],
    )
    event = Chart(inline_rows(_events([finding], line)))
    span = event.mark_rect(opacity=0.3, color=colour).encode(x="low:Q", x2="high:Q")
    rule = event.mark_rule(color=colour, strokeWidth=1.6).encode(x="age:Q", tooltip=_event_tooltip())
    layers = [*stage_boundaries(line, height=150, names=False), span, band, floors, rule, curve]
    return overlay(*layers).properties(width=CHART_WIDTH / 3 - 55, height=150, title=_panel_title(finding))


def _when(finding: Finding) -> str:
    event = finding.emergence
    if event is None:
        return "emergence not measured"
    return f"emerges at {format_event(event)}" if event.known else "not shown to emerge"


def _panel_title(finding: Finding) -> alt.TitleParams:
    score = f"{SCORE_LABELS[finding.metric]} {format_interval(finding.final)} at the end"
    return panel_title(f"{finding.name}: {_when(finding)}", finding.site, score)


def _curve(finding: Finding) -> pd.DataFrame:
    curve = thin_curve(finding.curve).assign(name=finding.name, at=finding.site)
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
