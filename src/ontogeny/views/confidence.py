"""Confidence by stage: entropy, calibration and entropy neurons.

Top left: each stage's entropy and top probability on neutral texts and its errors on questions, with 95 % intervals; grey: a perfectly
calibrated model. Top right: the reliability diagram, with perfect calibration as the dashed line. Middle: neurons of the last MLP by the
norm and the logit variance of their output weights; candidates for entropy neurons are low and right, with a ring if the causal test
confirms them. Bottom: share of common candidates of two stages (grey: chance), and the share of the difference in entropy that moves
with the candidates' weights from the first stage to the second.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import ConceptRecords, coord_column, mean_over_seeds
from ontogeny.findings.timeline import Timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import (
    colour_by_name,
    facet_rows_by_name,
    inline_rows,
    known_intervals,
    number_tooltips,
    panel_title,
)
from ontogeny.views._layout import Chart, concat, hconcat, overlay, vconcat
from ontogeny.views._legend import LegendEntry
from ontogeny.views._stage_grid import checkpoint_rows, each_stage, stack_concepts
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR, MUTED_COLOUR

title = "Confidence, stage by stage"
place = 10
needs = frozenset({"stage", "concept", "metric", "control", "value", "low", "high", "coords"})

NUMBERS = {
    "entropy": "entropy of the next token (nats)",
    "top_probability": "its top probability (0–1)",
    "question_accuracy": "questions right (0–1)",
    "ece": "calibration error (0–1)",
    "brier": "Brier score (0–2)",
}
METRICS = (*NUMBERS, "reliability", "neuron_norm", "logit_variance", "entropy_neurons", "neuron_overlap", "swap_share")
MOST = 6
"""Maximum number of checkpoints."""
_KEY = (
    LegendEntry("95 % interval", "line", INK_COLOUR),
    LegendEntry("a calibrated model, or random sets of neurons", "band", MUTED_COLOUR, opacity=0.28),
    LegendEntry("perfect calibration", "line", MUTED_COLOUR, (4, 4)),
)
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    return stack_concepts(
        records, select(records), _subject, title=title, what="entropy or logit_variance", legend=_KEY
    )


def _subject(subject: ConceptRecords, line: Timeline) -> list[Any]:
    rows, order = checkpoint_rows(subject, line, most=MOST)
    if not order:
        return []
    rows = rows[rows["moment"].isin(order) & rows["other"].isin([*order, ""])]
    top = [chart for chart in (_numbers(rows, order), _reliability(rows, order)) if chart is not None]
    row = hconcat(*top, spacing=40).resolve_scale(color="independent") if top else None
    return [row, _scatter(rows, order), _pairs(rows, order)]


def _numbers(rows: pd.DataFrame, order: list[str]) -> Any:
    panels = []
    for metric, name in NUMBERS.items():
        own = rows[rows["metric"].eq(metric)]
        if own.empty:
            continue
        columns = ("moment", "value", "low", "high")
        plain, floor = (
            Chart(inline_rows(mean_over_seeds(own[own["control"].eq(control)], "moment"), *columns)).encode(
                y=alt.Y("moment:N", sort=order, title="stage", scale=alt.Scale(domain=order))
            )
            for control in ("", "calibrated")
        )
        scale = alt.Scale(zero=False, nice=True)
        x = alt.X("value:Q", title=name, scale=scale, axis=alt.Axis(grid=True, tickCount=4))
        tooltip = ["moment:N", *number_tooltips(*columns[1:], digits=".4f")]
        chance = floor.mark_rule(strokeWidth=8, color=MUTED_COLOUR, opacity=0.25).encode(x="low:Q", x2="high:Q")
        rules = plain.mark_rule(color=INK_COLOUR, strokeWidth=2).encode(
            x=alt.X("low:Q", title=name, scale=scale), x2="high:Q"
        )
        points = plain.mark_circle(size=70, opacity=1, color=CATEGORY_COLOURS[0]).encode(x=x, tooltip=tooltip)
        marks = [
            *known_intervals(chance, own[own["control"].eq("calibrated")]),
            *known_intervals(rules, own[own["control"].eq("")]),
            points,
        ]
        panels.append(overlay(*marks).properties(width=330, height=18 * len(order) + 8))
    said = [
        f"{word} {text}"
        for metric, word in (("entropy", "entropy"), ("ece", "calibration error"))
        if (text := each_stage(rows[rows["metric"].eq(metric) & rows["control"].eq("")], order))
    ]
    heading = panel_title("Confidence and calibration", *said)
    return vconcat(*panels, spacing=10).properties(title=heading) if panels else None


def _reliability(rows: pd.DataFrame, order: list[str]) -> Any:
    cells = rows[rows["metric"].eq("reliability")]
    if cells.empty:
        return None
    confidence = pd.to_numeric(coord_column(cells, "confidence"), errors="coerce")
    cells = cells.assign(name=cells["moment"], confidence=confidence)
    least = max(0.0, float(cells["confidence"].min()) // 0.1 / 10)
    low = min(least, float(cells["value"].min()) // 0.1 / 10)
    scales = alt.Scale(domain=[least, 1]), alt.Scale(domain=[low, 1])
    columns = ("name", "confidence", "value", "low", "high", "n")
    base = Chart(inline_rows(cells, *columns)).encode(
        x=alt.X("confidence:Q", title="belief in the likeliest answer (0–1)", scale=scales[0]),
        y=alt.Y("value:Q", title="how often it is right (0–1)", scale=scales[1]),
        color=colour_by_name(order),
    )
    tooltip = ["name:N", *number_tooltips(*columns[1:5]), "n:Q"]
    size = alt.Size("n:Q", scale=alt.Scale(range=[20, 300]), legend=alt.Legend(title="questions", symbolStrokeWidth=1))
    points = base.mark_circle(opacity=0.85).encode(size=size, tooltip=tooltip)
    ends = base.mark_rule(opacity=0.35, clip=True).encode(y=alt.Y("low:Q", scale=scales[1]), y2="high:Q")
    line = base.mark_line(opacity=0.6, strokeWidth=1.5)
    right = (
        Chart(alt.InlineData(values=[{"confidence": low, "value": low}, {"confidence": 1, "value": 1}]))
        .mark_line(color=MUTED_COLOUR, strokeDash=[4, 4], clip=True)
        .encode(x=alt.X("confidence:Q", scale=scales[0]), y=alt.Y("value:Q", scale=scales[1]))
    )
    return overlay(right, ends, line, points).properties(width=300, height=300, title=panel_title("Reliability"))


_KINDS = {"": "other", "variance": "candidate by variance", "null": "candidate by null space"}


def _scatter(rows: pd.DataFrame, order: list[str]) -> Any:
    rows = rows.assign(neuron=coord_column(rows, "neuron"), candidate=coord_column(rows, "candidate"))
    parts = [
        rows[rows["metric"].eq(m)][["moment", "neuron", "candidate", "value"]]
        for m in ("neuron_norm", "logit_variance")
    ]
    cells = parts[0].merge(parts[1], on=["moment", "neuron"], suffixes=("_norm", "_variance"))
    cells = cells[cells["value_variance"].gt(0)]
    if cells.empty:
        return None
    cells = cells.rename(columns={"value_norm": "norm", "value_variance": "variance", "candidate_norm": "by"})
    sure = rows[rows["metric"].eq("entropy_neurons")]
    confirmed = {
        (m, n) for m, text in zip(sure["moment"], coord_column(sure, "neurons"), strict=True) for n in text.split()
    }
    cells["kind"] = [_KINDS.get(by, "by both") for by in cells["by"]]
    cells["ring"] = [float((m, n) in confirmed) for m, n in zip(cells["moment"], cells["neuron"], strict=True)]
    names = [order_name for order_name in order if order_name in set(cells["moment"])]
    kinds = [*_KINDS.values(), "by both"]
    shades = [MUTED_COLOUR, CATEGORY_COLOURS[0], CATEGORY_COLOURS[1], CATEGORY_COLOURS[2]]
    colour = alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=shades), legend=alt.Legend(title="neuron"))
    domain = [float(cells["variance"].min()) / 1.3, float(cells["variance"].max()) * 1.3]
    columns = min(len(names), 3)
    panels = []
    for name in names:
        own = cells[cells["moment"].eq(name)].sort_values("kind", key=lambda k: k.map(kinds.index))
        base = Chart(inline_rows(own, "neuron", "norm", "variance", "kind", "ring")).encode(
            x=alt.X("norm:Q", title="norm (units of the stream)", scale=alt.Scale(zero=False)),
            y=alt.Y("variance:Q", title="logit variance (of cosines)", scale=alt.Scale(type="log", domain=domain)),
        )
        tooltip = ["neuron:N", "kind:N", *number_tooltips("norm"), *number_tooltips("variance", digits=".2e")]
        points = base.mark_circle(size=26, opacity=0.7).encode(color=colour, tooltip=tooltip)
        count = int(own["ring"].sum())
        # Without a ring the scale would have no extent, and Vega would warn.
        ring = base.transform_filter("datum.ring > 0").mark_point(size=140, color=INK_COLOUR, strokeWidth=1.5)
        layers = [points, ring] if count else [points]
        heading = panel_title(name, f"{count} confirmed" if count else "none confirmed" if len(sure) else "")
        panels.append(overlay(*layers).properties(width=CHART_WIDTH / columns - 90, height=210, title=heading))
    grid = concat(*panels, columns=columns, spacing=20).resolve_scale(color="shared", y="shared")
    return grid.properties(title=panel_title("Neurons of the last MLP"))


def _pairs(rows: pd.DataFrame, order: list[str]) -> Any:
    cells = rows[rows["metric"].isin(["neuron_overlap", "swap_share"])]
    cells = cells.assign(
        by=coord_column(cells, "by"), of=coord_column(cells, "of"), couple=cells["other"] + " → " + cells["moment"]
    )
    forward = len(order) > 3  # else both ways
    pairs = [(a, b) for i, a in enumerate(order) for j, b in enumerate(order) if (j > i if forward else j != i)]
    couples = [f"{a} → {b}" for a, b in pairs if f"{a} → {b}" in set(cells["couple"])]
    cells = cells[cells["couple"].isin(couples)]
    shares = (
        ("neuron_overlap", "by", "variance", "candidates in common, by variance (0–1)"),
        ("neuron_overlap", "by", "null", "by null space (0–1)"),
        ("swap_share", "of", "entropy", "share of the entropy's difference (0–1)"),
    )
    panels: list[Any] = []
    for metric, key, value, name in shares:
        own = cells[cells["metric"].eq(metric) & cells[key].eq(value)]
        if own.empty:
            continue
        first = not panels
        low, high = float(own[["value", "low"]].min().min()), float(own[["value", "high"]].max().max())
        scale = alt.Scale(domain=[max(-2.0, min(0.0, low)), min(2.0, max(1.0, high))], clamp=True)
        columns = ("couple", "value", "low", "high")
        plain, chance = (
            Chart(inline_rows(mean_over_seeds(own[own["control"].eq(control)], "couple"), *columns)).encode(
                y=facet_rows_by_name("couple", couples, "stage → stage", first=first)
            )
            for control in ("", "random_set")
        )
        x = alt.X("value:Q", title=name, scale=scale, axis=alt.Axis(grid=True, tickCount=5))
        tooltip = ["couple:N", *number_tooltips(*columns[1:])]
        reach = chance.mark_rule(strokeWidth=9, color=MUTED_COLOUR, opacity=0.3).encode(
            x=alt.X("low:Q", scale=scale), x2="high:Q"
        )
        rules = plain.mark_rule(strokeWidth=2, color=INK_COLOUR).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
        points = plain.mark_circle(size=60, opacity=1, color=CATEGORY_COLOURS[0]).encode(x=x, tooltip=tooltip)
        marks = [
            *known_intervals(reach, own[own["control"].eq("random_set")]),
            *known_intervals(rules, own[own["control"].eq("")]),
            points,
        ]
        panels.append(overlay(*marks).properties(width=230, height=20 * len(couples) + 8))
    heading = panel_title("Common candidates, and the effect of swapping their weights")
    return hconcat(*panels, spacing=18).properties(title=heading) if panels else None
