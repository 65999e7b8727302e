"""Sparse autoencoders over training: how well they reconstruct, and when the latents of the last checkpoint come to be.

Top: latents that fire at a token (L0) against the share of the loss that is recovered, a point for each autoencoder; early checkpoints
are light, crosses are autoencoders of an untrained network. Below: share of the last checkpoint's latents with a match at each
checkpoint, in the autoencoder of the same seed and in one of another seed, and share of each checkpoint's latents with a match at the
next one; the dashed line is what an untrained network gives. Bars: latents that are matched without a gap from that checkpoint on.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import coord_column, mean_over_seeds, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._axes import stage_boundaries, step_axis, thin_checkpoints
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    inline_rows,
    missing_rows_reason,
    number_tooltips,
    panel_title,
)
from ontogeny.views._layout import Chart, hconcat, overlay, vconcat
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, MUTED_COLOUR, ORDINAL_SCHEME

title = "Sparse autoencoders"
place = 16
needs = frozenset({"stage", "step", "method", "metric", "control", "seed", "value", "coords"})
METRICS = ("sae_l0", "sae_loss_recovered", "sae_matched", "sae_persists", "sae_births")
MOST, KINDS = 40, 4
_MATCHED = "latents with a match (0–1)"
_KEY = ["stage", "step", "method", "control", "seed", "size"]
_SHARES = {
    ("sae_matched", ""): "last checkpoint's latents here, same seed",
    ("sae_matched", "other_seed"): "last checkpoint's latents here, other seed",
    ("sae_persists", ""): "latents from here at the next checkpoint",
}
select = rows_with_metrics(*METRICS)
where = metric_condition(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(tidy_records(select(records)), make_timeline(records), MOST, "sae_l0")
    rows = table[table["value"].notna()]
    rows = rows.assign(size=coord_column(rows, "latents") + " latents, " + coord_column(rows, "sparsity"))
    rows = rows.assign(name=rows["method"] + ", " + rows["size"])
    scores = _scores(rows, line)
    if scores.empty and rows[rows["metric"].eq("sae_matched")].empty:
        return blank_chart(title, missing_rows_reason(table, "a sparse autoencoder (ontogeny sae makes them)"))
    panels = [] if scores.empty else [_reconstruction(scores, fewer)]
    for name in list(dict.fromkeys(rows["name"]))[:KINDS]:
        own = rows[rows["name"].eq(name)]
        parts = [panel for panel in (_matches(own, line, name), _births(own, line)) if panel is not None]
        panels += [hconcat(*parts, spacing=30)] if parts else []
    return panels[0] if len(panels) == 1 else vconcat(*panels, spacing=24).resolve_scale(color="independent")


def _scores(rows: pd.DataFrame, line: Timeline) -> pd.DataFrame:
    """L0 and recovered loss of each autoencoder side by side, with the place of its checkpoint in the lineage."""
    sides = [rows[rows["metric"].eq(metric)] for metric in ("sae_l0", "sae_loss_recovered")]
    both = sides[0].merge(sides[1][[*_KEY, "value"]], on=_KEY, suffixes=("", "_loss"))
    measured = both[both["control"].eq("")]
    placed = line.place(measured) if len(measured) else measured.assign(age=float("nan"))
    return pd.concat([placed, both[both["control"].eq("untrained")].assign(age=float("nan"))])


def _reconstruction(scores: pd.DataFrame, fewer: str) -> Any:
    columns = ("name", "method", "size", "stage", "step", "seed", "age", "value", "value_loss")
    own, floor = scores[scores["control"].eq("")], scores[scores["control"].eq("untrained")]
    x = alt.X(
        "value:Q",
        title="latents that fire at a token, L0 (count)",
        scale=alt.Scale(zero=False),
        axis=alt.Axis(tickCount=6),
    )
    y = alt.Y("value_loss:Q", title="loss recovered (0–1)", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    tooltip = ["name:N", "stage:N", "step:Q", "seed:N", *number_tooltips("value", "value_loss")]
    kinds = list(dict.fromkeys(scores["method"]))
    symbols = ["circle", "square", "triangle-up", "diamond"][: len(kinds)]
    shape = alt.Shape(
        "method:N",
        scale=alt.Scale(domain=kinds, range=symbols),
        legend=alt.Legend(title=None) if len(kinds) > 1 else None,
    )
    legend = alt.Legend(title="place in training (early to late)", gradientLength=120, labelExpr="''", tickCount=0)
    age = alt.Color("age:Q", scale=alt.Scale(scheme=alt.SchemeParams(**ORDINAL_SCHEME)), legend=legend)
    points = Chart(inline_rows(own, *columns)).mark_point(filled=True, size=60, opacity=0.85)
    marks = [points.encode(x=x, y=y, color=age, shape=shape, tooltip=tooltip)]
    if len(floor):
        crosses = Chart(inline_rows(floor, *columns)).mark_point(shape="cross", size=50, color=MUTED_COLOUR)
        marks.append(crosses.encode(x=x, y=y, tooltip=tooltip))
    heading = panel_title("Sparsity against what the model can still use", fewer)
    return overlay(*marks).properties(width=CHART_WIDTH / 2 - 60, height=200, title=heading)


def _matches(own: pd.DataFrame, line: Timeline, name: str) -> Any:
    curves = []
    for (metric, control), label in _SHARES.items():
        chosen = own[own["metric"].eq(metric) & own["control"].eq(control)]
        if len(chosen):
            bounds = chosen.assign(low=chosen["value"], high=chosen["value"])
            curves.append(line.place(mean_over_seeds(bounds, "metric")).assign(name=label))
    if not curves:
        return None
    points = pd.concat(curves)
    base = Chart(inline_rows(points, "name", "age", "stage", "step", "value", "low", "high"))
    y = alt.Y("value:Q", title=_MATCHED, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5))
    colour = colour_by_name([label for label in _SHARES.values() if label in set(points["name"])])
    colour.legend = alt.Legend(title=None, orient="bottom", columns=1, symbolOpacity=1)
    x = step_axis(line, ticks=5, brief=True)
    marks = [
        *stage_boundaries(line, height=170),
        base.mark_area(opacity=0.15).encode(x=x, y=alt.Y("low:Q", title=_MATCHED), y2="high:Q", color=colour),
        base.mark_line(strokeWidth=1.8, point={"size": 22}).encode(
            x=x, y=y, color=colour, tooltip=["name:N", "stage:N", "step:Q", *number_tooltips("value", "low", "high")]
        ),
    ]
    floor = own[own["metric"].eq("sae_matched") & own["control"].eq("untrained")]["value"]
    if len(floor):
        rule = Chart(alt.InlineData(values=[{"value": float(floor.mean())}]))
        marks.append(rule.mark_rule(color=MUTED_COLOUR, strokeDash=[4, 3]).encode(y="value:Q"))
    return overlay(*marks).properties(width=CHART_WIDTH / 2 - 60, height=170, title=panel_title(name))


def _births(own: pd.DataFrame, line: Timeline) -> Any:
    births = own[own["metric"].eq("sae_births")]
    if births.empty:
        return None
    births = line.place(mean_over_seeds(births, "metric"))
    bars = Chart(inline_rows(births, "age", "stage", "step", "value", "n")).mark_bar(size=9, color=CATEGORY_COLOURS[0])
    y = alt.Y("value:Q", title="latents born (count)", axis=alt.Axis(tickCount=5))
    tooltip = ["stage:N", "step:Q", *number_tooltips("value", digits=".1f"), "n:Q"]
    drawn = bars.encode(x=step_axis(line, ticks=5, brief=True), y=y, tooltip=tooltip)
    heading = panel_title("Births of the last checkpoint's latents")
    return overlay(*stage_boundaries(line, height=170), drawn).properties(
        width=CHART_WIDTH / 2 - 80, height=170, title=heading
    )
