"""How each layer's dependence on the input and on the label moves through training: the plane of two normalised HSICs.

Right: the activations depend more on the input; up: more on the label. One line a layer, from its first checkpoint (small dot)
to its last (large dot); colour is time. HSIC is a bounded, kernel-dependent measure of dependence: it is not mutual
information, and it has no nats.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import Subject, over_seeds, subjects, tidy, wanted
from ontogeny.findings.timeline import Timeline, timeline
from ontogeny.views._axes import short
from ontogeny.views._pieces import blank, heading, inline, panels, reason
from ontogeny.views._theme import INK, MUTED, ORDER, WIDTH

title = "Dependence plane"
place = 6
needs = frozenset({"step", "concept", "site", "metric", "method", "value"})

METRICS = ("nhsic_tx", "nhsic_ty")
KERNELS = ("gaussian_50", "gaussian_median", "imq", "linear")


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin(METRICS)]


def draw(records: pd.DataFrame) -> Any:
    table = tidy(select(records))
    line = timeline(table)
    drawn = [_panel(s.name, path, line) for s in subjects(table) if len(path := _path(s, line))]
    return panels(drawn) if drawn else blank(title, reason(table, "both nhsic_tx and nhsic_ty"))


def _path(subject: Subject, line: Timeline) -> pd.DataFrame:
    """Both dependences of a site at a checkpoint in one row, under the first kernel that has them."""
    rows = line.place(wanted(subject.rows, *METRICS))
    rows = rows[rows["head"].isna()]
    for kernel in [*KERNELS, *rows["method"].unique()]:
        own = rows[rows["method"].eq(kernel) & rows["value"].notna()]
        tx, ty = (over_seeds(own[own["metric"].eq(metric)], "site") for metric in METRICS)
        both = tx.merge(ty[["stage", "step", "site", "value"]], on=["stage", "step", "site"], suffixes=("_tx", "_ty"))
        if len(both):
            return both.rename(columns={"value_tx": "tx", "value_ty": "ty"}).assign(name=subject.name)
    return rows.head(0)


def _panel(name: str, path: pd.DataFrame, line: Timeline) -> Any:
    columns = ("name", "site", "layer", "stage", "step", "age", "tx", "ty")
    x = alt.X(
        "tx:Q", title="dependence on the input, nHSIC(T, X)", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)
    )
    y = alt.Y(
        "ty:Q", title="dependence on the label, nHSIC(T, Y)", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)
    )
    base = alt.Chart(inline(path, *columns)).encode(x=x, y=y, detail="site:N")
    ends = path.groupby("site", sort=False)["age"].transform("max").eq(path["age"])
    last = alt.Chart(inline(path[ends], *columns)).encode(x=x, y=y)
    layers = [
        base.mark_line(color=MUTED, opacity=0.35, strokeWidth=1.2).encode(order="age:Q"),
        base.mark_circle(size=30, opacity=1).encode(color=_time(line), tooltip=_tooltip()),
        last.mark_circle(size=110, opacity=1, stroke="white", strokeWidth=1).encode(
            color=_time(line), tooltip=_tooltip()
        ),
        last.mark_text(dx=9, align="left", fontSize=10, color=INK).encode(text="layer:N"),
    ]
    named = heading(name)
    named.subtitle = f"kernel {path['method'].iloc[0]}; numbers are layers"
    return alt.layer(*layers).properties(width=WIDTH / 3 - 55, height=220, title=named)


def _time(line: Timeline) -> alt.Color:
    ticks = line.ticks(6)
    labels = ",".join(f"'{row.age:.4f}':'{short(row.step)}'" for row in ticks.itertuples())
    legend = alt.Legend(
        title="training step",
        orient="bottom",
        gradientLength=320,
        values=ticks["age"].tolist(),
        labelExpr=f"({{{labels}}})[format(datum.value, '.4f')]",
    )
    domain = [float(line.moments["age"].min()), float(line.moments["age"].max())]
    return alt.Color("age:Q", scale=alt.Scale(scheme=ORDER, domain=domain), legend=legend)


def _tooltip() -> list[alt.Tooltip]:
    told = [alt.Tooltip("name:N", title="concept"), alt.Tooltip("site:N"), alt.Tooltip("stage:N")]
    return [
        *told,
        alt.Tooltip("step:Q", format=","),
        alt.Tooltip("tx:Q", format=".3f"),
        alt.Tooltip("ty:Q", format=".3f"),
    ]
