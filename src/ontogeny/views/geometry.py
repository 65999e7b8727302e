"""Shared geometry of embeddings: how alike two models, or two checkpoints, place the same tokens (arXiv:2503.21073).

Left: correlation of the cosines of all pairs of tokens, about their mean. Right: agreement of the weights of a token's nearest neighbours.
Dashed: tokens shuffled among those of about the same frequency, which is what frequency alone explains. Below: intrinsic dimension by
two neighbours, beside a Gaussian cloud of the same size (dashed); hidden states of the same tokens by depth, at the last checkpoint.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views._axes import stage_boundaries, step_axis, thin_checkpoints
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    inline_rows,
    interval_band,
    missing_rows_reason,
    number_tooltips,
    panel_title,
    resolve_scales,
)
from ontogeny.views._layout import Chart, concat, hconcat, overlay, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CHART_WIDTH, INK_COLOUR, SEQUENTIAL_SCHEME

title = "Shared geometry"
place = 11
together = True
needs = frozenset({"lineage", "step", "metric", "method", "control", "value", "low", "high", "coords"})

METRICS = ("embedding_similarity", "local_similarity", "intrinsic_dimension", "hidden_similarity")
MOST = 40
_SHOWN = {
    "embedding_similarity": "pearson",
    "local_similarity": "lle",
    "intrinsic_dimension": "two_nn",
    "hidden_similarity": "pearson",
}
_AXES = {
    "embedding_similarity": "similarity of all pairs (−1 to 1)",
    "local_similarity": "similarity of neighbours (−1 to 1)",
    "intrinsic_dimension": "intrinsic dimension (dimensions)",
    "hidden_similarity": "similarity of hidden states (−1 to 1)",
}
_WIDTH, _HEIGHT, _DASH = CHART_WIDTH / 2 - 90, 190, [4, 3]
where = f"{metric_condition(*METRICS)} and {{thin:{MOST}:embedding_similarity}}"


def select(records: pd.DataFrame) -> pd.DataFrame:
    """Rows about the mean, with the frequency-matched, the shuffled or the Gaussian null."""
    rows = records[records["metric"].isin(METRICS)]
    form = coord_column(rows, "form")
    return rows[form.isin(["", "centred"]) & ~coord_column(rows, "against").isin(["previous", "stage_start"])]


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(
        tidy_records(select(records)), make_timeline(records), MOST, "embedding_similarity"
    )
    rows = table[table["value"].notna()]
    rows = rows[
        [
            _SHOWN.get(metric) == method or not method
            for metric, method in zip(rows["metric"], rows["method"], strict=True)
        ]
    ]
    if rows.empty:
        return blank_chart(title, missing_rows_reason(table, "a shared geometry (ontogeny geometry makes them)"))
    rows = _named(rows)
    spaces = [space for space in ("embedding", "unembedding") if space in set(rows["space"])]
    blocks = [block for space in spaces for block in _space(rows[rows["space"].eq(space)], space, line, fewer)]
    hidden = rows[rows["metric"].eq("hidden_similarity")]
    blocks += [_by_depth(_last(hidden, line))] if len(hidden) else []
    return with_legend(
        resolve_scales(vconcat(*blocks, spacing=26), color="independent"),
        LegendEntry("measured, with its 95 % interval", "line", INK_COLOUR),
        LegendEntry("null: tokens of the same frequency, or a Gaussian cloud", "line", INK_COLOUR, (4, 3)),
    )


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """The comparison of each row, in words, and whether it is a null that is drawn."""
    columns = {name: coord_column(rows, name) for name in ("space", "against", "other_model", "depth")}
    rows = rows.assign(**columns)
    names = [
        str(model) if not against else f"{model} and {'its last checkpoint' if against == 'last' else other}"
        for model, against, other in zip(rows["lineage"], rows["against"], rows["other_model"], strict=True)
    ]
    matched = set(rows[rows["control"].eq("frequency_matched")]["metric"])
    drawn = [
        not control
        or control
        == ("gaussian" if metric == "intrinsic_dimension" else "frequency_matched" if metric in matched else "shuffled")
        for metric, control in zip(rows["metric"], rows["control"], strict=True)
    ]
    return rows.assign(name=names, null=rows["control"].ne(""), depth=pd.to_numeric(rows["depth"], errors="coerce"))[
        drawn
    ]


def _last(rows: pd.DataFrame, line: Timeline) -> pd.DataFrame:
    """The rows of the last checkpoint of each comparison."""
    ages = line.place(rows)
    if ages.empty:
        return rows
    return ages[ages["age"].eq(ages.groupby("name")["age"].transform("max"))]


def _space(rows: pd.DataFrame, space: str, line: Timeline, fewer: str) -> list[Any]:
    placed = line.place(rows)
    if placed["age"].nunique() > 1:
        names = _names(placed)
        shown = [metric for metric in _SHOWN if placed["metric"].eq(metric).any()]
        panels = [_over_steps(placed[placed["metric"].eq(metric)], metric, names, line) for metric in shown]
        return [concat(*panels, columns=2, spacing=30, title=panel_title(f"{space} over training", fewer))]
    pairs = [metric for metric in ("embedding_similarity", "local_similarity") if rows["metric"].eq(metric).any()]
    matrices = [_matrix(rows[rows["metric"].eq(metric)], metric) for metric in pairs]
    own = rows[rows["metric"].eq("intrinsic_dimension")]
    blocks = [hconcat(*matrices, spacing=50, title=panel_title(space))] if matrices else []
    return [*blocks, *([_bars(own, space)] if len(own) else [])]


def _names(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["name"]))


def _over_steps(rows: pd.DataFrame, metric: str, names: list[str], line: Timeline) -> Any:
    colour = colour_by_name(names)
    x = step_axis(line, ticks=5, brief=True)
    measured, null = (
        _curves(rows[rows["null"].eq(flag)], x, _AXES[metric], colour, dashed=flag) for flag in (False, True)
    )
    layers = [*stage_boundaries(line, height=_HEIGHT), *measured, *null]
    return overlay(*layers).properties(width=_WIDTH, height=_HEIGHT)


def _curves(rows: pd.DataFrame, x: alt.X, name: str, colour: Any, *, dashed: bool, axis: str = "age") -> list[Any]:
    if rows.empty:
        return []
    y = alt.Y("value:Q", title=name, scale=alt.Scale(zero=True))
    columns = ["name", axis, "stage", "step", "value", "low", "high"]
    base = Chart(inline_rows(rows, *columns)).encode(x=x, color=colour)
    tooltip = ["name:N", "stage:N", *number_tooltips("step", digits=","), *number_tooltips("value", "low", "high")]
    if dashed:
        return [base.mark_line(strokeWidth=1.2, strokeDash=_DASH).encode(y=y, tooltip=tooltip)]
    band = base.mark_area(opacity=0.15) if axis != "age" else interval_band(base, rows, opacity=0.15)
    bands = [band.encode(y=alt.Y("low:Q", title=name), y2="high:Q")] if rows["low"].notna().any() else []
    return [*bands, base.mark_line(strokeWidth=2, point={"size": 16}).encode(y=y, tooltip=tooltip)]


def _by_depth(rows: pd.DataFrame) -> Any:
    """Similarity of hidden states over the depth of the layer."""
    rows = rows.sort_values("depth")
    x = alt.X("depth:Q", title="relative depth (0–1)", scale=alt.Scale(domain=[0, 1]))
    name, colour = _AXES["hidden_similarity"], colour_by_name(_names(rows))
    layers = [
        layer
        for flag in (False, True)
        for layer in _curves(rows[rows["null"].eq(flag)], x, name, colour, dashed=flag, axis="depth")
    ]
    return overlay(*layers).properties(width=_WIDTH, height=_HEIGHT, title=panel_title("hidden states by depth"))


def _matrix(rows: pd.DataFrame, metric: str) -> Any:
    """Pairs of models as a symmetric matrix."""
    pairs = rows[~rows["null"] & rows["other_model"].ne("")]
    turned = pairs.assign(lineage=pairs["other_model"], other_model=pairs["lineage"])
    cells = pd.concat([pairs, turned]).assign(text=lambda table: [f"{value:.2f}" for value in table["value"]])
    names: Sequence[str] = list(dict.fromkeys(cells["lineage"]))
    side = min(_WIDTH - 60, 60 + 60 * len(names))
    scale = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[0, 1], clamp=True)
    base = Chart(inline_rows(cells, "lineage", "other_model", "value", "low", "high", "text")).encode(
        x=alt.X("lineage:N", sort=names, title="model", axis=alt.Axis(labelAngle=-30, labelLimit=140)),
        y=alt.Y("other_model:N", sort=names, title="model", axis=alt.Axis(labelLimit=140)),
        tooltip=["lineage:N", "other_model:N", *number_tooltips("value", "low", "high")],
    )
    legend = alt.Legend(title=None, orient="bottom", gradientLength=side - 20)
    boxes = base.mark_rect().encode(color=alt.Color("value:Q", scale=scale, legend=legend))
    ink = alt.condition("datum.value > 0.6", alt.value("white"), alt.value(INK_COLOUR))
    labels = base.mark_text(fontSize=11).encode(text="text:N", color=ink)
    chart = overlay(boxes, labels).properties(width=side, height=side)
    return chart.properties(title=panel_title(_AXES[metric].split(" (")[0]))


def _bars(rows: pd.DataFrame, space: str) -> Any:
    """Intrinsic dimension of each model, beside that of a Gaussian cloud."""
    kinds = ["measured", "Gaussian cloud"]
    rows = rows.assign(name=[kinds[int(flag)] for flag in rows["null"]])
    base = Chart(inline_rows(rows, "lineage", "name", "value", "low", "high")).encode(
        y=alt.Y("lineage:N", title="model", axis=alt.Axis(labelLimit=140)),
        color=colour_by_name(kinds),
        yOffset=alt.YOffset("name:N", sort=kinds),
        tooltip=["lineage:N", "name:N", *number_tooltips("value", "low", "high")],
    )
    x = alt.X("value:Q", title=_AXES["intrinsic_dimension"], scale=alt.Scale(zero=True))
    dots = base.mark_circle(size=60, opacity=1).encode(x=x)
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=_AXES["intrinsic_dimension"]), x2="high:Q")
    layers = [bars, dots] if rows["low"].notna().any() else [dots]
    return overlay(*layers).properties(
        width=_WIDTH - 60, height=40 + 36 * rows["lineage"].nunique(), title=panel_title(f"dimension of the {space}")
    )
