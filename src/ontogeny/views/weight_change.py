"""Weight change by stage: what fine-tuning did to each matrix, and what the change does, beside changes of equal size.

Top: norm and rank of ΔW, and the share of it that writes into the base's column space and reads its row space; log₂ of how much more it
responds to harmful than to harmless requests. A colour is a matrix; solid: ΔW, dashed: random changes of equal rank and norm (of the rank:
Gaussian noise), dotted: changes along the gradient of the loss on neutral texts. Middle: separation of the two kinds of requests
after each block (1: each at the centre of its kind; dashed: shuffled labels), and the effect of each MLP output of the tuned stage
in its base, and of the base in the tuned stage (dashed: a random move as far). Bottom: log-odds of refusing along W₀ + αΔW, loss on neutral
texts, and change of the Jacobian norm. Bars and bands are 95 % intervals, of nulls 95 % of the draws.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import ConceptRecords, coord_column, mean_over_seeds
from ontogeny.findings.timeline import Timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import colour_by_name, inline_rows, known_intervals, number_tooltips, panel_title
from ontogeny.views._layout import Chart, concat, hconcat, overlay, vconcat
from ontogeny.views._legend import LegendEntry
from ontogeny.views._stage_grid import checkpoint_rows, each_stage, stack_concepts
from ontogeny.views._theme import CHART_WIDTH, INK_COLOUR, MUTED_COLOUR

title = "Weight change, stage by stage"
place = 11
needs = frozenset({"stage", "concept", "layer", "metric", "control", "value", "low", "high", "coords"})

MATRIX_METRICS = {
    "weight_change_norm": "norm of ΔW (share of W₀)",
    "weight_change_rank": "rank of ΔW (share of the ranks)",
    "column_alignment": "in the column space of W₀ (0–1)",
    "row_alignment": "in the row space of W₀ (0–1)",
    "response_ratio": "harmful over harmless (log₂ of a ratio)",
}
PATCHES = {
    "mlp_patch_effect": "MLP outputs of the tuned stage in its base",
    "mlp_restore_effect": "MLP outputs of the base in the tuned stage",
}
LAYER_METRICS = ("cluster_separation", *PATCHES)
WHOLE_METRICS = ("jacobian_change", "interpolated_log_odds", "interpolated_loss")
METRICS = (*MATRIX_METRICS, *LAYER_METRICS, *WHOLE_METRICS)
MOST = 4
"""Maximum number of checkpoints."""
CHANGE, RANDOM, GRADIENT = "ΔW", "random, shuffled or noise", "along the neutral gradient"
_KINDS_OF_CHANGE = {
    "": CHANGE,
    "random_change": RANDOM,
    "gaussian": RANDOM,
    "shuffled_label": RANDOM,
    "random_direction": RANDOM,
    "neutral_gradient": GRADIENT,
}
_KINDS = ["harmful", "harmless"]
_DASHES = {CHANGE: [1, 0], RANDOM: [5, 4], GRADIENT: [1.5, 3]}
_KEY = (
    LegendEntry("ΔW", "line", INK_COLOUR),
    LegendEntry("random changes of equal rank and norm, shuffled labels or noise", "line", INK_COLOUR, (5, 4)),
    LegendEntry("along the gradient of the loss on neutral texts", "line", INK_COLOUR, (2, 3)),
)
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    what = "weight_change_norm or cluster_separation"
    return stack_concepts(records, select(records), _subject, title=title, what=what, legend=_KEY)


def _subject(subject: ConceptRecords, line: Timeline) -> list[Any]:
    rows, order = checkpoint_rows(subject, line, most=MOST)
    if not order:
        return []
    coords = {key: coord_column(rows, key) for key in ("matrix", "kind", "alpha", "parts", "share")}
    rows = rows.assign(**coords, change=rows["control"].map(_KINDS_OF_CHANGE).fillna(CHANGE))
    rows = rows[rows["moment"].isin(order) & rows["other"].isin([*order, ""])]
    pairs = [(other, moment) for moment in order for other in order if _is_pair(rows, moment, other)]
    charts = [_matrices(_of(rows, moment, other), f"{other} → {moment}") for other, moment in pairs]
    patches = [
        _patches(_of(rows, moment, other), metric, f"{other} → {moment}")
        for other, moment in pairs[-1:]
        for metric in PATCHES
    ]
    for parts in ([_clusters(rows, order), *patches[:1]], patches[1:]):
        if present := [chart for chart in parts if chart is not None]:
            charts.append(hconcat(*present, spacing=50).resolve_scale(color="independent"))
    charts += [_sweep(_of(rows, moment, other), f"{other} → {moment}") for other, moment in pairs[-1:]]
    return charts


def _is_pair(rows: pd.DataFrame, moment: str, other: str) -> bool:
    return bool((rows["moment"].eq(moment) & rows["other"].eq(other)).any())


def _of(rows: pd.DataFrame, moment: str, other: str) -> pd.DataFrame:
    return rows[rows["moment"].eq(moment) & rows["other"].eq(other)]


def _named(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows with this column as their `name`."""
    return rows.assign(name=rows[column])


def _lines(
    rows: pd.DataFrame, x: Any, y: str, *, colours: list[str], by: str, width: float, legend: bool = True
) -> Any:
    """Lines with points and intervals: a colour by `name`, a dash by kind of change."""
    rows = mean_over_seeds(rows, by, "name", "change")
    columns = (by, "name", "change", "value", "low", "high")
    base = Chart(inline_rows(rows, *columns)).encode(
        x=x, color=colour_by_name(colours, legend=legend), detail="change:N"
    )
    scale = alt.Scale(domain=list(_DASHES), range=list(_DASHES.values()))
    axis = alt.Y("value:Q", title=y, scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(grid=True, tickCount=5))
    tooltip = ["name:N", "change:N", f"{by}:Q", *number_tooltips("value", "low", "high")]
    lines = base.mark_line(strokeWidth=1.8).encode(
        y=axis, strokeDash=alt.StrokeDash("change:N", scale=scale, legend=None)
    )
    own = base.transform_filter(f"datum.change == '{CHANGE}'")
    points = own.mark_circle(size=42, opacity=1).encode(y=axis, tooltip=tooltip)
    bars = base.mark_rule(strokeWidth=1.3, opacity=0.6).encode(y=alt.Y("low:Q", title=y), y2="high:Q")
    # A rule without an interval would have no extent.
    layers = [*known_intervals(bars.transform_filter("datum.low != null"), rows), lines, points]
    return overlay(*layers).properties(width=width, height=170)


def _layer_axis(rows: pd.DataFrame) -> Any:
    last = int(rows["layer"].max())
    axis = alt.Axis(values=list(range(1, last + 1)) if last <= 12 else list(range(0, last + 1, 4)), grid=False)
    return alt.X("layer:Q", title="layer", axis=axis, scale=alt.Scale(domain=[0.7, last + 0.3], nice=False))


def _matrices(rows: pd.DataFrame, pair: str) -> Any:
    names = sorted(name for name in rows["matrix"].unique() if name)
    panels = []
    for metric, y in MATRIX_METRICS.items():
        own = rows[rows["metric"].eq(metric) & rows["layer"].notna()]
        if metric == "weight_change_rank":
            own = own.assign(value=pd.to_numeric(own["share"], errors="coerce"))
        own = _named(own[own["value"].notna()], "matrix")
        if len(own):
            panels.append(_lines(own, _layer_axis(own), y, colours=names, by="layer", width=(CHART_WIDTH - 290) / 3))
    if not panels:
        return None
    norms = rows[rows["metric"].eq("weight_change_norm") & rows["value"].notna()]["value"]
    said = f"ΔW is {norms.min():.2g} to {norms.max():.2g} of the norm of W₀" if len(norms) else ""
    grid = concat(*panels, columns=3, spacing=34)
    return grid.resolve_scale(color="shared").properties(title=panel_title(f"Matrices, {pair}", said))


def _clusters(rows: pd.DataFrame, order: list[str]) -> Any:
    own = _named(rows[rows["metric"].eq("cluster_separation") & rows["layer"].notna()], "moment")
    if own.empty:
        return None
    last = own[own["layer"].eq(own["layer"].max()) & own["control"].eq("")]
    chart = _lines(
        own,
        _layer_axis(own),
        "separation of the clusters (−1 to 1)",
        colours=order,
        by="layer",
        width=CHART_WIDTH / 2 - 120,
    )
    said = each_stage(last, order)
    return chart.properties(
        title=panel_title("Harmful and harmless requests", f"after the last block {said}" if said else "")
    )


def _patches(rows: pd.DataFrame, metric: str, pair: str) -> Any:
    own = _named(rows[rows["metric"].eq(metric) & rows["layer"].notna()], "kind")
    if own.empty:
        return None
    y = "change of refusing's log-odds (nats)"
    chart = _lines(own, _layer_axis(own), y, colours=_KINDS, by="layer", width=CHART_WIDTH / 2 - 150)
    return chart.properties(title=panel_title(PATCHES[metric], pair))


def _sweep(rows: pd.DataFrame, pair: str) -> Any:
    alpha = pd.to_numeric(rows["alpha"], errors="coerce")
    swept = rows.assign(alpha=alpha)[alpha.notna()]
    x = alt.X("alpha:Q", title="α (times the change)", axis=alt.Axis(grid=False))
    panels, width = [], (CHART_WIDTH - 200) / 3
    odds = swept[swept["metric"].eq("interpolated_log_odds")]
    for parts, text in (("all", "all parameters"), ("matrices", "matrices of the blocks")):
        own = _named(odds[odds["parts"].eq(parts)], "kind")
        if len(own):
            y = "log-odds of refusing (nats)"
            chart = _lines(own, x, y, colours=_KINDS, by="alpha", width=width, legend=False)
            panels.append(chart.properties(title=panel_title(text)))
    loss = swept[swept["metric"].eq("interpolated_loss") & swept["parts"].eq("matrices")].assign(name="neutral")
    if len(loss):
        chart = _lines(loss, x, "loss (nats per token)", colours=["neutral"], by="alpha", width=width, legend=False)
        panels.append(chart.properties(title=panel_title("neutral texts, matrices of the blocks")))
    jacobian = _jacobian(rows)
    if not panels and jacobian is None:
        return None
    top = hconcat(*panels, spacing=34).resolve_scale(color="independent") if panels else None
    parts_shown = [part for part in (top, jacobian) if part is not None]
    return vconcat(*parts_shown, spacing=18).properties(title=panel_title(f"W₀ + αΔW, {pair}"))


def _jacobian(rows: pd.DataFrame) -> Any:
    own = rows[rows["metric"].eq("jacobian_change")]
    if own.empty:
        return None
    kinds = [kind for kind in (CHANGE, RANDOM, GRADIENT) if kind in set(own["change"])]
    own = mean_over_seeds(_named(own, "kind"), "name", "change")
    columns = ("name", "change", "value", "low", "high")
    base = Chart(inline_rows(own, *columns)).encode(
        y=alt.Y("change:N", sort=kinds, title="kind of change", axis=alt.Axis(labelLimit=220)),
        yOffset=alt.YOffset("name:N"),
        color=colour_by_name(_KINDS),
    )
    words = "change of the Jacobian norm (doublings)"
    x = alt.X("value:Q", title=words, axis=alt.Axis(grid=True))
    zero = Chart(alt.InlineData(values=[{"x": 0}])).mark_rule(color=MUTED_COLOUR, strokeDash=[3, 3])
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=words), x2="high:Q")
    points = base.mark_circle(size=60, opacity=1).encode(
        x=x, tooltip=["name:N", "change:N", *number_tooltips(*columns[2:])]
    )
    layers = [zero.encode(x="x:Q"), *known_intervals(bars.transform_filter("datum.low != null"), own), points]
    return overlay(*layers).properties(width=CHART_WIDTH - 320, height=32 * len(kinds))
