"""Refusal by stage: cosines of the refusal directions, and the effect of each stage's vector in each stage.

Top: cosine of the stages' directions with one template, position and layer for all, and with each stage's own; on the diagonal the cosine
of two halves of one stage's instructions, about the highest that noise allows. Middle: effect of each stage's vector in each stage, ablated
on harmful and added on harmless instructions, with 95 % intervals; grey: mean and interval of random directions of equal norm, pale:
range of a single one. Bottom: another stage's vector relative to the stage's own, above random directions: 1 is as good, 0 no better than
random; values beyond ±3 are drawn at the edge.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.sentences import format_score
from ontogeny.findings.table import ConceptRecords, coord_column, mean_over_seeds
from ontogeny.findings.timeline import Timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import facet_rows_by_name, inline_rows, labelled_cells, number_tooltips, panel_title
from ontogeny.views._layout import Chart, hconcat, overlay, vconcat
from ontogeny.views._legend import LegendEntry
from ontogeny.views._stage_grid import checkpoint_rows, each_stage, lowest_pair, stack_concepts
from ontogeny.views._theme import (
    CATEGORY_COLOURS,
    CHART_WIDTH,
    DIVERGING_SCHEME,
    FAINT_COLOUR,
    INK_COLOUR,
    MUTED_COLOUR,
)

title = "Refusal, stage by stage"
place = 9
needs = frozenset({"stage", "concept", "metric", "control", "value", "low", "high", "coords"})

METRICS = ("refusal_cosine", "refusal_effect", "refusal_transfer")
MOST = 6
"""Maximum number of checkpoints."""
RANDOM = "random"
ACTS = {"ablation": "ablated, harmful instructions", "addition": "added, harmless instructions"}
MEASURES = {"log_odds": "change of refusing's log-odds (nats)", "phrases": "change of the share refused (−1 to 1)"}
_KEY = (
    LegendEntry("95 % interval", "line", INK_COLOUR),
    LegendEntry("range of one random direction", "band", FAINT_COLOUR),
    LegendEntry("0: no better than random, 1: as good as the own vector", "upright", MUTED_COLOUR, (3, 3)),
)
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    what = "refusal_cosine or refusal_effect"
    return stack_concepts(records, select(records), _subject, title=title, what=what, legend=_KEY)


def _subject(subject: ConceptRecords, line: Timeline) -> list[Any]:
    rows, order = checkpoint_rows(subject, line, most=MOST)
    if not order:
        return []
    rows = rows.assign(
        **{key: coord_column(rows, key) for key in ("held", "act", "of", "form", "way", "q2_5", "q97_5")},
        other=rows["other"].where(rows["other"].ne(""), RANDOM),
    )
    rows = rows[rows["moment"].isin(order) & rows["other"].isin([*order, RANDOM])]
    return [_cosines(rows, order), _effects(rows, order), _transfer(rows, order)]


def _cosines(rows: pd.DataFrame, order: list[str]) -> Any:
    cells = rows[rows["metric"].eq("refusal_cosine")]
    halves = cells["control"].eq("split_half")
    plain = cells["control"].eq("") & cells["moment"].ne(cells["other"])
    cells = cells[halves | plain]
    charts = []
    for held, text in (("shared", "same template, position, layer"), ("own", "each stage its own")):
        own = mean_over_seeds(cells[cells["held"].eq(held)], "moment", "other")
        if not own.empty:
            charts.append(_matrix(own, order, text))
    if not charts:
        return None
    row = hconcat(*charts, spacing=40).resolve_scale(color="shared")
    pairs = cells[plain.reindex(cells.index) & cells["held"].eq("shared")]
    return row.properties(title=panel_title("Cosine of the refusal directions", lowest_pair(pairs, "cosine")))


def _matrix(cells: pd.DataFrame, order: list[str], text: str) -> Any:
    cells = cells.assign(
        label=[format_score(v) for v in cells["value"]],
        ends=[
            f"[{format_score(low)}, {format_score(high)}]" if pd.notna(low) else "halves" * (a == b)
            for low, high, a, b in zip(cells["low"], cells["high"], cells["moment"], cells["other"], strict=True)
        ],
    )
    side = max(46, min(84, 360 / max(1, len(order))))
    base = Chart(inline_rows(cells, "moment", "other", "value", "low", "high", "label", "ends")).encode(
        x=alt.X("other:N", sort=order, title="stage", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("moment:N", sort=order, title="stage"),
    )
    scale = alt.Scale(scheme=DIVERGING_SCHEME, reverse=True, domain=[-1, 1])
    legend = alt.Legend(title="cosine (−1 to 1)", gradientLength=110)
    colour = alt.Color("value:Q", scale=scale, legend=legend)
    tooltip = ["moment:N", "other:N", *number_tooltips("value", "low", "high")]
    labels: dict[str, dict[str, Any]] = {
        "label": {"fontSize": 12, "dy": -6},
        "ends": {"fontSize": 9, "dy": 8, "opacity": 0.85},
    }
    layers = labelled_cells(base, colour, tooltip, "abs(datum.value) > 0.6", **labels)
    size = side * len(order)
    return overlay(*layers).properties(width=size, height=0.75 * size, title=panel_title(text))


def _effects(rows: pd.DataFrame, order: list[str]) -> Any:
    cells = rows[rows["metric"].eq("refusal_effect")]
    lines = [
        _strip(part, order, act, measure)
        for act in ACTS
        for measure in MEASURES
        if not (part := cells[cells["act"].eq(act) & cells["of"].eq(measure)]).empty
    ]
    own = cells[cells["moment"].eq(cells["other"]) & cells["act"].eq("ablation") & cells["of"].eq("log_odds")]
    said = each_stage(own, order, "nats")
    heading = panel_title(
        "Effect of each stage's vector (rows) in each stage (columns)", f"own vector ablated: {said}" if said else ""
    )
    return vconcat(*lines, spacing=16).properties(title=heading) if lines else None


def _strip(cells: pd.DataFrame, order: list[str], act: str, measure: str) -> Any:
    """One intervention and measure: one panel per stage, one bar per vector, on one scale."""
    cells = mean_over_seeds(cells, "moment", "other", "act", "of")
    ends = cells[["value", "low", "high"]].assign(reach=0.0)
    for key in ("q2_5", "q97_5"):
        cells[key] = pd.to_numeric(cells[key], errors="coerce")
        ends[key] = cells[key]
    low, high = float(ends.min().min()), float(ends.max().max())
    if measure == "phrases":
        low, high = -1.0, 1.0
    scale = alt.Scale(domain=[low, high] if high > low else [low - 1, high + 1], nice=measure != "phrases")
    vectors = [*order, *([RANDOM] if cells["other"].eq(RANDOM).any() else [])]
    panels = []
    for i, stage in enumerate(order):
        own = cells[cells["moment"].eq(stage)].assign(
            whose=lambda r, stage=stage: [
                "random" if o == RANDOM else "own" if o == stage else "another's" for o in r["other"]
            ]
        )
        columns = ("other", "value", "low", "high", "q2_5", "q97_5", "whose")
        base = Chart(inline_rows(own, *columns)).encode(
            y=facet_rows_by_name("other", vectors, "vector of", first=i == 0)
        )
        tooltip = ["other:N", *number_tooltips(*columns[1:6])]
        kinds = alt.Scale(domain=["own", "another's", "random"], range=[*CATEGORY_COLOURS[:2], MUTED_COLOUR])
        colour = alt.Color("whose:N", scale=kinds, legend=alt.Legend(title="vector"))
        x = alt.X("value:Q", title=MEASURES[measure], scale=scale, axis=alt.Axis(tickCount=4, grid=True))
        reach = base.mark_rule(strokeWidth=9, color=FAINT_COLOUR).encode(x=alt.X("q2_5:Q", scale=scale), x2="q97_5:Q")
        bars = base.mark_bar(size=9, opacity=0.85).encode(x=x, color=colour, tooltip=tooltip)
        rules = base.mark_rule(color=INK_COLOUR, strokeWidth=1.5).encode(x="low:Q", x2="high:Q")
        width, height = (CHART_WIDTH - 130) / len(order) - 26, 20 * len(vectors)
        panel = overlay(reach, bars, rules).properties(width=width, height=height, title=panel_title(stage))
        panels.append(panel)
    return hconcat(*panels, spacing=14).properties(title=panel_title(ACTS[act]))


def _transfer(rows: pd.DataFrame, order: list[str]) -> Any:
    cells = rows[rows["metric"].eq("refusal_transfer") & rows["form"].eq("above_random") & rows["of"].eq("log_odds")]
    cells = mean_over_seeds(cells, "moment", "other", "act", "way")
    if cells.empty:
        return None
    cells = cells.assign(couple=cells["other"] + " → " + cells["moment"], what=[ACTS.get(a, a) for a in cells["act"]])
    if len(order) > 3:
        cells = cells[cells["way"].eq("forward")]
    couples = [f"{a} → {b}" for a in order for b in order if f"{a} → {b}" in set(cells["couple"])]
    top = min(3.0, max(1.1, float(cells[["value", "high"]].max().max())))
    low = max(-3.0, min(0.0, float(cells[["value", "low"]].min().min())))
    scale = alt.Scale(domain=[low, top], clamp=True)
    panels = []
    for i, act in enumerate(ACTS):
        own = cells[cells["act"].eq(act)]
        columns = ("couple", "way", "value", "low", "high")
        base = Chart(inline_rows(own, *columns)).encode(
            y=facet_rows_by_name("couple", couples, "vector of → stage", first=i == 0)
        )
        x = alt.X("value:Q", title="share of the own vector's effect (0–1)", scale=scale, axis=alt.Axis(grid=True))
        ways = alt.Scale(domain=["forward", "backward"], range=[CATEGORY_COLOURS[0], CATEGORY_COLOURS[4]])
        colour = alt.Color("way:N", scale=ways, legend=alt.Legend(title=None))
        tooltip = ["couple:N", "way:N", *number_tooltips(*columns[2:])]
        marks = Chart(alt.InlineData(values=[{"x": 0}, {"x": 1}])).mark_rule(color=MUTED_COLOUR, strokeDash=[3, 3])
        marks = marks.encode(x=alt.X("x:Q", scale=scale))
        rules = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale), x2="high:Q", color=colour)
        points = base.mark_circle(size=60, opacity=1).encode(x=x, color=colour, tooltip=tooltip)
        width, height = (CHART_WIDTH - 160) / 2 - 20, max(24 * len(couples), 40)
        panel = overlay(marks, rules, points).properties(width=width, height=height, title=panel_title(ACTS[act]))
        panels.append(panel)
    own = cells[cells["value"].notna()]
    best = own.iloc[int(own["value"].argmax())] if len(own) else None
    said = "" if best is None else f"largest share: {best['value']:.2f}, {best['couple']}, {best['what'].split(',')[0]}"
    heading = panel_title("Another stage's vector against the stage's own", said)
    return hconcat(*panels, spacing=20).properties(title=heading)
