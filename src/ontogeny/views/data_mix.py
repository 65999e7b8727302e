"""Data-mix axis: siblings trained on different shares of some data, compared along that share.

Above, each panel is one quantity over the share, with its 95 % interval over questions; dashed with a band: random directions of equal
norm (for probes the control task). Effects and parts removed are at equal KL on neutral text, so that a vector does not win by being
longer; a part below −1 is drawn at −1. Below, the frontier of each method: unwanted answers that are left at each alpha over its cost, a
line for each share from the unsteered model on the left; down and left is better. The intervals say nothing about another training run: a
trend is judged over siblings.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.dynamics.data_mix import SHARE_METRICS, ShareCurve, SharePoint, frontier_rows, mean_points, share_curves
from ontogeny.findings.steering_verdicts import METHOD_LABELS
from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.records import DATA_SHARE
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import (
    blank_chart,
    colour_by_name,
    inline_rows,
    known_intervals,
    missing_rows_reason,
    number_tooltips,
    panel_title,
    resolve_scales,
    small_multiples,
)
from ontogeny.views._layout import Chart, overlay, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CHART_WIDTH, MUTED_COLOUR, ORDINAL_SCHEME

title = "Along the data mix"
place = 13
needs = frozenset({"concept", "method", "metric", "control", "stage", "step", "value", "low", "high", "coords"})
_PANELS = {
    "unwanted": ("unwanted answers, unsteered", "probability (0–1)"),
    "probe": ("probe at the best site", "accuracy (0–1)"),
    "heads": ("probes of single heads", "mean accuracy (0–1)"),
    "effect": ("effect at equal KL", "effect (nats)"),
    "removed": ("part removed at equal KL", "part of their probability (≤ 1)"),
    "kl": ("KL at the chosen alpha", "KL on neutral text (nats per token)"),
    "cross_entropy": ("cross-entropy at the chosen alpha", "rise on neutral text (nats per token)"),
}
_KEY = (
    LegendEntry("95 % interval over questions", "upright", MUTED_COLOUR, opacity=0.6),
    LegendEntry("random directions; control task of a probe", "line", MUTED_COLOUR, (4, 3)),
    LegendEntry("95 % of random directions", "band", MUTED_COLOUR, opacity=0.18),
)
_WIDTH, _HEIGHT, _COLUMNS = CHART_WIDTH / 3 - 66, 180, 3
select = rows_with_metrics(*SHARE_METRICS, "share_trend")
where = f"({select.where}) and (coords['{DATA_SHARE}'] is not null or metric in ('best_site', 'share_trend'))"
"""Most rows of a large run are accuracies of heads in stages without siblings."""


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    curves = [curve for curve in share_curves(table) if curve.known()]
    frontiers = frontier_rows(table)
    if not curves and frontiers.empty:
        return blank_chart(
            title, missing_rows_reason(_of_siblings(table), "unwanted_share and removed_share of siblings")
        )
    several = len({curve.concept for curve in curves}) > 1
    names = list(dict.fromkeys(_name(curve, several=several) for curve in curves))
    panels = []
    for quantity in _PANELS:
        own = [curve for curve in curves if curve.quantity == quantity]
        if own:
            panels.append(_panel(own, names, several, _said(table, own)))
    blocks = [with_legend(small_multiples(panels, columns=_COLUMNS), *_KEY)] if panels else []
    lines = [
        _frontier(f"{concept} · {METHOD_LABELS.get(str(method), str(method))}", rows)
        for concept, of_concept in frontiers.groupby("concept", sort=False)
        for method, rows in of_concept.groupby("method", sort=False)
    ]
    blocks += [small_multiples(lines, columns=_COLUMNS)] if lines else []
    return blocks[0] if len(blocks) == 1 else resolve_scales(vconcat(*blocks, spacing=30), color="independent")


def _of_siblings(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["metric"].isin(["unwanted_share", "removed_share"])]


def _name(curve: ShareCurve, *, several: bool) -> str:
    method = METHOD_LABELS.get(curve.method, curve.method)
    return f"{curve.concept} · {method}" if several else method


def _said(table: pd.DataFrame, curves: Sequence[ShareCurve]) -> str:
    """The trend of a panel with one curve."""
    if len(curves) > 1:
        return ""
    rows = table[table["metric"].eq("share_trend") & table["control"].eq("") & table["value"].notna()]
    rows = rows[rows["concept"].eq(curves[0].concept) & rows["method"].eq(curves[0].method)]
    rows = rows[coord_column(rows, "of").eq(curves[0].quantity)]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    return f"rank correlation {row['value']:+.2f}, q {float(row['coords'].get('q', 'nan')):.2g}".replace("-", "−")


def _rows_of(points: Sequence[SharePoint], name: str) -> pd.DataFrame:
    rows = pd.DataFrame([vars(point) for point in points if point.value == point.value])
    return rows.drop(columns=["note"]).assign(name=name)


def _panel(curves: Sequence[ShareCurve], names: list[str], several: bool, said: str) -> Any:
    heading, unit = _PANELS[curves[0].quantity]
    rows = pd.concat([_rows_of(curve.points, _name(curve, several=several)) for curve in curves], ignore_index=True)
    x = _share_axis(rows)
    # A model with next to nothing to remove has a part far below −1, which would flatten all others.
    scale = alt.Scale(domain=[-1, 1], clamp=True) if curves[0].quantity == "removed" else alt.Scale(zero=False)
    y = {"title": unit, "axis": alt.Axis(tickCount=5), "scale": scale}
    colour = colour_by_name(names, title="method")
    base = Chart(inline_rows(rows, "name", "share", "stage", "value", "low", "high")).encode(x=x, color=colour)
    means = pd.concat(
        [_rows_of(mean_points(curve), _name(curve, several=several)) for curve in curves], ignore_index=True
    )
    null = means[means["null"].notna()]
    layers: list[Any] = []
    if len(null):
        grey = Chart(inline_rows(null, "name", "share", "null", "null_low", "null_high")).encode(x=x, color=colour)
        if null["null_low"].notna().any():
            layers.append(grey.mark_area(opacity=0.12).encode(y=alt.Y("null_low:Q", **y), y2="null_high:Q"))
        layers.append(grey.mark_line(strokeDash=[4, 3], strokeWidth=1.2).encode(y=alt.Y("null:Q", **y)))
    layers += known_intervals(
        base.mark_rule(strokeWidth=1.2, opacity=0.6).encode(y=alt.Y("low:Q", **y), y2="high:Q"), rows
    )
    line = Chart(inline_rows(means, "name", "share", "value")).encode(x=x, color=colour)
    layers.append(line.mark_line(strokeWidth=1.6).encode(y=alt.Y("value:Q", **y)))
    tooltip = ["name:N", "stage:N", *number_tooltips("share", "value", "low", "high")]
    layers.append(base.mark_point(size=34, filled=True).encode(y=alt.Y("value:Q", **y), tooltip=tooltip))
    return overlay(*layers).properties(width=_WIDTH, height=_HEIGHT, title=panel_title(heading, said))


def _share_axis(rows: pd.DataFrame) -> alt.X:
    shares = sorted(rows["share"].unique().tolist())
    axis = alt.Axis(values=shares, format="~g", labelOverlap=True)
    return alt.X("share:Q", title="share of the data (0–1)", scale=alt.Scale(nice=False, padding=8), axis=axis)


def _frontier(name: str, rows: pd.DataFrame) -> Any:
    rows = rows.assign(alpha=coord_column(rows, "alpha"), shown=[f"{share:g}" for share in rows["share"]])
    rows = rows.sort_values(["share", "cost"])
    own = rows[rows["kind"].isin(["", "unsteered"])]
    random = rows[rows["kind"].isin(["random_direction", "unsteered"])]
    shares = [f"{share:g}" for share in sorted(own["share"].unique())]
    x = alt.X(
        "cost:Q",
        title="KL on neutral text (nats per token)",
        scale=alt.Scale(type="sqrt"),
        axis=alt.Axis(tickCount=5, format="~g"),
    )
    y = {"title": "unwanted answers left, probability (0–1)", "axis": alt.Axis(tickCount=5)}
    scale = alt.Scale(domain=shares, scheme=alt.SchemeParams(**ORDINAL_SCHEME))
    colour = alt.Color("shown:O", title="share", scale=scale, sort=shares, legend=alt.Legend(symbolOpacity=1))
    base = Chart(inline_rows(own, "shown", "stage", "alpha", "cost", "value", "low", "high")).encode(x=x, color=colour)
    layers: list[Any] = known_intervals(
        base.mark_rule(strokeWidth=1, opacity=0.5).encode(y=alt.Y("low:Q", **y), y2="high:Q"), own
    )
    dashed = Chart(inline_rows(random, "shown", "stage", "cost", "value")).mark_line(strokeDash=[4, 3], strokeWidth=1)
    layers.append(dashed.encode(x=x, y=alt.Y("value:Q", **y), color=colour, order="cost:Q", detail="stage:N"))
    tooltip = ["shown:N", "stage:N", "alpha:N", *number_tooltips("cost", "value", "low", "high")]
    line = base.mark_line(strokeWidth=1.8, point={"size": 26}, order=True)
    layers.append(line.encode(y=alt.Y("value:Q", **y), order="cost:Q", detail="stage:N", tooltip=tooltip))
    return overlay(*layers).properties(width=_WIDTH, height=_HEIGHT + 20, title=panel_title(name, "frontier"))
