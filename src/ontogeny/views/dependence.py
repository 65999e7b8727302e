"""Dependence plane: each layer's dependence on the input and on the label through training, as two normalised HSICs.

Right: more dependence on the input; up: more on the label. One line per layer, from its first checkpoint (small dot) to its last
(large dot with the layer's number); colour is time. Below the dashed line (97.5 % of label permutations) the dependence on the label
is not significant. HSIC depends on the kernel; it is not mutual information and has no unit of nats.
"""

import json
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.finding import PREFERRED_KERNELS
from ontogeny.findings.selection import metric_condition
from ontogeny.findings.sentences import format_score
from ontogeny.findings.table import (
    ConceptRecords,
    evenly_spread,
    mean_over_seeds,
    records_by_concept,
    select_rows,
    tidy_records,
)
from ontogeny.findings.timeline import Timeline, make_timeline
from ontogeny.views import rows_with_metrics
from ontogeny.views._axes import place_label, thin_checkpoints
from ontogeny.views._chart_parts import (
    blank_chart,
    inline_rows,
    missing_rows_reason,
    number_tooltips,
    panel_title,
    small_multiples,
)
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CHART_WIDTH, INK_COLOUR, MUTED_COLOUR, ORDINAL_SCHEME

title = "Dependence plane"
place = 6
needs = frozenset({"step", "concept", "site", "metric", "method", "value"})

METRICS = ("nhsic_tx", "nhsic_ty")
MOST, LAYERS = 60, 9
"""Maximum numbers of checkpoints and of layers, evenly spread."""
select = rows_with_metrics(*METRICS)
where = f"{metric_condition(*METRICS)} and head is null and {{thin:{MOST}:nhsic_ty}}"


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thin_checkpoints(tidy_records(select(records)), make_timeline(records), MOST, "nhsic_ty")
    paths = [(s, path) for s in records_by_concept(table) if len(path := _path(s, line))]
    if not paths:
        return blank_chart(title, missing_rows_reason(table, "both nhsic_tx and nhsic_ty"))
    both = pd.concat([path for _, path in paths])
    floors = pd.Series([floor for s, path in paths for floor in _floor(s, path)], dtype=float)
    axes = (
        _axis(both["tx"], "tx", "input, nHSIC(T, X)"),
        _axis(pd.concat([both["ty"], floors]), "ty", "label, nHSIC(T, Y)"),
    )
    chart = small_multiples([_panel(subject, path, line, axes, fewer) for subject, path in paths])
    key = [
        LegendEntry("path of a layer", "line", MUTED_COLOUR, opacity=0.35),
        LegendEntry("checkpoint; the last one is large, with the layer's number", "dot", MUTED_COLOUR),
    ]
    floor = [LegendEntry("97.5 % of label permutations", "line", MUTED_COLOUR, (4, 3))] if len(floors) else []
    return with_legend(chart, *key, *floor)


def _axis(values: pd.Series, field: str, on: str) -> dict[str, Any]:
    """One frame for all concepts, so that noise looks small."""
    scale = alt.Scale(domain=[min(0.0, float(values.min())), float(values.max()) * 1.06 or 1.0], nice=False)
    return {
        "shorthand": f"{field}:Q",
        "title": f"dependence on the {on}",
        "scale": scale,
        "axis": alt.Axis(tickCount=5),
    }


def _path(subject: ConceptRecords, line: Timeline) -> pd.DataFrame:
    """Both dependences of a site and checkpoint in one row, for the first kernel that has them."""
    rows = line.place(select_rows(subject.rows, *METRICS))
    rows = rows[rows["head"].isna()]
    for kernel in [*PREFERRED_KERNELS, *rows["method"].unique()]:
        own = rows[rows["method"].eq(kernel) & rows["value"].notna()]
        tx, ty = (mean_over_seeds(own[own["metric"].eq(metric)], "site") for metric in METRICS)
        both = tx.merge(ty[["stage", "step", "site", "value"]], on=["stage", "step", "site"], suffixes=("_tx", "_ty"))
        if len(both):
            both = both[both["layer"].isin(evenly_spread(sorted(both["layer"].unique()), LAYERS))]
            return both.rename(columns={"value_tx": "tx", "value_ty": "ty"}).assign(name=subject.name)
    return rows.head(0)


def _panel(
    subject: ConceptRecords, path: pd.DataFrame, line: Timeline, axes: tuple[dict[str, Any], dict[str, Any]], fewer: str
) -> Any:
    columns = ("name", "site", "layer", "stage", "step", "age", "tx", "ty")
    x, y = alt.X(**axes[0]), alt.Y(**axes[1])
    base = Chart(inline_rows(path, *columns)).encode(x=x, y=y, detail="site:N")
    ends = path.groupby("site", sort=False)["age"].transform("max").eq(path["age"])
    last = Chart(inline_rows(path[ends], *columns)).encode(x=x, y=y)
    floor = pd.DataFrame({"ty": _floor(subject, path)})
    layers = [
        Chart(inline_rows(floor)).mark_rule(color=MUTED_COLOUR, strokeDash=[4, 3]).encode(y=y),
        base.mark_line(color=MUTED_COLOUR, opacity=0.35, strokeWidth=1.2).encode(order="age:Q"),
        base.mark_circle(size=30, opacity=1).encode(color=_time(line), tooltip=_tooltip()),
        last.mark_circle(size=110, opacity=1, stroke="white", strokeWidth=1).encode(
            color=_time(line), tooltip=_tooltip()
        ),
        *_numbers(path[ends], x, y),
    ]
    heading = panel_title(_headline(subject.name, path), f"kernel {path['method'].iloc[0]}", fewer)
    return overlay(*layers).properties(width=CHART_WIDTH / 3 - 55, height=220, title=heading)


def _headline(name: str, path: pd.DataFrame) -> str:
    """The layer that depends most on the label at the end, and from where it came."""
    ends = path[path["age"].eq(path["age"].max())]
    top = ends.iloc[int(ends["ty"].argmax())]
    own = path[path["site"].eq(top["site"])]
    first = own.iloc[int(own["age"].argmin())]
    moved = "" if len(own) < 2 else f"from {format_score(first['ty'])} to "
    return f"{name}: dependence on the label {moved}{format_score(top['ty'])} at {top['site']}"


def _floor(subject: ConceptRecords, path: pd.DataFrame) -> list[float]:
    """The mean 97.5 % quantile of label permutations, if it was measured."""
    chance = select_rows(subject.rows, "nhsic_ty", control="shuffled")
    own = chance["method"].eq(path["method"].iloc[0]) & chance["head"].isna()
    highs = chance.loc[own, "high"].dropna().tolist()
    return [sum(highs) / len(highs)] if highs else []


def _numbers(last: pd.DataFrame, x: alt.X, y: alt.Y) -> list[Any]:
    """Numbers of the layers at their last dots, odd ones right and even ones left, since adjacent layers often end close together."""
    sides = (("left", 9, last[last["layer"].mod(2).eq(1)]), ("right", -9, last[last["layer"].mod(2).eq(0)]))
    return [
        Chart(inline_rows(rows, "tx", "ty", "layer"))
        .mark_text(dx=dx, align=align, fontSize=10, color=INK_COLOUR)
        .encode(x=x, y=y, text="layer:N")
        for align, dx, rows in sides
        if len(rows)
    ]


def _time(line: Timeline) -> alt.Color:
    ticks = line.ticks(6)
    shown = zip(ticks["age"], ticks["step"], ticks["stage"], strict=True)
    labels = json.dumps({f"{age:.4f}": place_label(stage, step, line) for age, step, stage in shown})
    legend = alt.Legend(
        title="training step",
        orient="bottom",
        gradientLength=420,
        values=ticks["age"].tolist(),
        labelExpr=f"({labels})[format(datum.value, '.4f')]",
    )
    domain = [float(line.moments["age"].min()), float(line.moments["age"].max())]
    return alt.Color("age:Q", scale=alt.Scale(scheme=alt.SchemeParams(**ORDINAL_SCHEME), domain=domain), legend=legend)


def _tooltip() -> list[alt.Tooltip]:
    names = [alt.Tooltip("name:N", title="concept"), alt.Tooltip("site:N"), alt.Tooltip("stage:N")]
    return [*names, *number_tooltips("step", digits=","), *number_tooltips("tx", "ty")]
