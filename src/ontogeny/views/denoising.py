"""How well mask and depth of the final image are read from each block (up) at each denoising step (right).

Rows of panels are steps of the training. Grey cells are not better than the best control at their step: noisy pixels, place and, where
measured, an untrained network (95 % interval over images, mean of seeds); their values are in the tooltip.
White cells could not be measured. The lowest rows are controls. Means over training seeds.
The error of the depth is small where it is read well.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import blank_chart, missing_rows_reason, panel_title, resolve_scales
from ontogeny.views._heat_map import score_cells
from ontogeny.views._layout import hconcat, overlay, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CHART_WIDTH, MISSING_COLOUR, SEQUENTIAL_SCHEME

title = "Readability over denoising steps"
place = 46
needs = frozenset({"step", "metric", "control", "value", "low", "coords"})

LABELS = {"mask_dice": "mask: Dice", "depth_rank": "depth: rank correlation", "depth_error": "depth: error"}
CHECKPOINTS = 3
"""Steps of the training that are drawn: the last one, and others at equal distances in their order."""
_CONTROLS = ("place", "pixels")
select = rows_with_metrics(*LABELS, *(f"{metric}_gain" for metric in LABELS))
where = f"{metric_condition(*LABELS, *(f'{metric}_gain' for metric in LABELS))} and (control is null or control = '')"


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    table = table[table["control"].eq("")]
    cells = _cells(table)
    if cells.empty:
        return blank_chart(title, missing_rows_reason(table, "a score of a block at a denoising step"))
    steps = _drawn_steps(cells)
    rows = []
    for step in steps:
        panels = [
            _panel(cells[cells["metric"].eq(metric) & cells["step"].eq(step)], metric, step, first=not i)
            for i, metric in enumerate(LABELS)
            if cells["metric"].eq(metric).any()
        ]
        rows.append(resolve_scales(hconcat(*panels, spacing=24), color="independent"))
    chart = rows[0] if len(rows) == 1 else resolve_scales(vconcat(*rows, spacing=16), color="independent")
    return with_legend(chart, LegendEntry("not better than the controls", "cell", MISSING_COLOUR))


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each score, training step, block and denoising step: the mean over seeds, and whether it is above the controls."""
    table = table.assign(
        block=coord_column(table, "block"),
        denoising=pd.to_numeric(coord_column(table, "denoising"), errors="coerce"),
        step=table["step"].fillna(-1).astype(float),
    )
    table = table[table["value"].notna() & table["denoising"].notna() & table["block"].ne("")]
    keys = ["metric", "step", "block", "denoising"]
    cells = table[table["metric"].isin(list(LABELS))].groupby(keys, as_index=False)["value"].mean()
    gains = table[table["metric"].str.endswith("_gain")].assign(metric=table["metric"].str.removesuffix("_gain"))
    gains = gains.groupby(keys, as_index=False)[["value", "low"]].mean().rename(columns={"value": "gain"})
    cells = cells.merge(gains, on=keys, how="left")
    cells["pale"] = cells["low"].le(0)
    cells["shown"] = cells["value"].where(~cells["pale"])
    names = sorted(cells["block"].unique(), key=_block_order)
    cells["low"] = cells["block"].map({name: i - 0.5 for i, name in enumerate(names)}).astype(float)
    return cells.assign(
        high=cells["low"] + 1, left=cells["denoising"] - 0.5, right=cells["denoising"] + 0.5, site=cells["block"]
    )


def _block_order(name: str) -> tuple[int, list[int], str]:
    """Controls first, then blocks as the image passes through them."""
    kind, _, rest = name.partition(".")
    kinds = (*_CONTROLS, "down", "mid", "up")
    return kinds.index(kind) if kind in kinds else len(kinds), [int(n) for n in rest.split(".") if n.isdigit()], name


def _drawn_steps(cells: pd.DataFrame) -> list[float]:
    steps = sorted(cells["step"].unique())
    places = {round(i * (len(steps) - 1) / (CHECKPOINTS - 1)) for i in range(CHECKPOINTS)}
    return [steps[i] for i in sorted(places)]


def _panel(cells: pd.DataFrame, metric: str, step: float, *, first: bool) -> Any:
    names = list(cells.sort_values("low")["block"].unique())
    spoken = " : ".join(f"datum.value == {i} ? {name!r}" for i, name in enumerate(names))
    axis = alt.Axis(values=list(range(len(names))), labelExpr=f"{spoken} : ''", grid=False, title="block")
    scale = alt.Scale(domain=[-0.5, len(names) - 0.5], nice=False, zero=False)
    last = int(cells["denoising"].max())
    x_scale = alt.Scale(domain=[-0.5, last + 0.5], nice=False, zero=False)
    x_axis = alt.Axis(values=list(range(0, last + 1, max(1, last // 8))), format="d", grid=False)
    span = {
        "x": alt.X("left:Q", scale=x_scale, axis=x_axis, title="denoising step (0 first)"),
        "x2": "right:Q",
        "y": alt.Y("low:Q", scale=scale, axis=axis),
        "y2": "high:Q",
    }
    columns = ("site", "denoising", "value", "gain", "shown", "left", "right", "low", "high")
    tooltip = [alt.Tooltip("site:N", title="block"), alt.Tooltip("denoising:Q", title="denoising step")]
    tooltip += [
        alt.Tooltip("value:Q", format=".3f"),
        alt.Tooltip("gain:Q", format=".3f", title="above the best control"),
    ]
    error = metric == "depth_error"
    colours = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[0.0, 0.3 if error else 1.0], clamp=True, reverse=error)
    legend = alt.Legend(title=LABELS[metric], orient="bottom", gradientLength=180)
    layers = score_cells(cells, columns, span, alt.Color("value:Q", scale=colours, legend=legend), tooltip)
    heading = panel_title(LABELS[metric], "" if step < 0 else f"training step {step:,.0f}")
    height = max(18 * len(names), 90)
    return overlay(*layers).properties(width=CHART_WIDTH / 3 - 80, height=height, title=heading)
