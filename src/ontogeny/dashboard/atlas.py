"""Atlas: concepts × layers, or heads × layers of one concept, at one checkpoint; and the difference of two checkpoints.

A chart is drawn once for all checkpoints, with their common scales. A step of the time slider changes its rows alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.dashboard.selection import Selection, step_text
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.findings.finding import CHANCE_SCORES, FLOOR_LABELS
from ontogeny.findings.selection import OWN_ROWS
from ontogeny.findings.sentences import SCORE_LABELS
from ontogeny.findings.table import mean_over_seeds, tidy_records
from ontogeny.sites import HEAD_PARTS
from ontogeny.storage.files import sql_literal
from ontogeny.views import DIVERGING_SCHEME, INK_COLOUR, MISSING_COLOUR, SEQUENTIAL_SCHEME, apply_theme
from ontogeny.views.layers import LEVEL

CELL_COLUMNS = ("concept", "site", "layer", "row", "value", "low", "high", "n", "p", "floor", "floor_name", "sure")
"""Columns of a cell in a chart."""
_LABELLED_LAYERS = 14
"""More layers leave no room for numbers in the cells."""


@dataclass(frozen=True)
class AtlasCells:
    """The cells of all checkpoints for one metric, part and probe."""

    rows: pd.DataFrame
    by_checkpoint: Mapping[tuple[str, str], pd.DataFrame]

    def at(self, stage: str, step: str) -> pd.DataFrame:
        """The cells of one checkpoint."""
        return self.by_checkpoint.get((stage, step), self.rows.iloc[:0])


def atlas_cells(shown: ShownRun, chosen: Selection) -> AtlasCells:
    """The cells of a selection at all checkpoints; of heads, those of its concept."""
    concept = heads_concept(shown, chosen)
    key = ("atlas", chosen.metric, chosen.part, chosen.method, concept)
    return shown.result(key, lambda: _read_cells(shown, chosen, concept))


def heads_concept(shown: ShownRun, chosen: Selection) -> str:
    """The concept whose heads are shown: the chosen one, else the first; "" for other parts, which show all concepts."""
    if chosen.part not in HEAD_PARTS:
        return ""
    return chosen.concept or next(iter(shown.describe()["concepts"]), "")


def _read_cells(shown: ShownRun, chosen: Selection, concept: str) -> AtlasCells:
    here = f"starts_with(site, {sql_literal(chosen.part + '.')})"
    if concept:
        here += f" and concept = {sql_literal(concept)}"
    probe = f"method = {sql_literal(chosen.method)}" if chosen.method else "method is null"
    columns = "concept, metric, control, split, site, layer, head, stage, step, value, low, high, n"
    own = tidy_records(
        shown.query(
            f"select {columns} from records where {here} and {probe} and {OWN_ROWS} and coalesce(split, '') != 'train' "
            f"and metric in ({sql_literal(chosen.metric)}, 'p_familywise')"
        )
    )
    cells = mean_over_seeds(own[own["metric"].eq(chosen.metric)], "concept", "site")
    keys = ["concept", "site", "stage", "step"]
    p = own[own["metric"].eq("p_familywise")][[*keys, "value"]].rename(columns={"value": "p"})
    cells = cells.merge(p.drop_duplicates(keys), on=keys, how="left")
    if chosen.metric == "p_familywise":
        cells["p"] = math.nan
    cells = _with_floors(shown, cells, chosen, here)
    cells["row"] = cells["head"].map("{:.0f}".format) if concept else cells["concept"]
    cells["sure"] = ~cells["p"].gt(LEVEL)
    order = {name: i for i, name in enumerate(shown.describe()["concepts"])}
    cells = cells.assign(place=cells["concept"].map(order)).sort_values(["place", "layer", "head"], kind="stable")
    by_checkpoint = {
        (str(stage), step_text(float(str(step)))): rows[list(CELL_COLUMNS)]
        for (stage, step), rows in cells.groupby(["stage", "step"], sort=False)
    }
    return AtlasCells(cells, by_checkpoint)


def _with_floors(shown: ShownRun, cells: pd.DataFrame, chosen: Selection, here: str) -> pd.DataFrame:
    """The cells with the highest floor of each: its value and its name."""
    names = ", ".join(sql_literal(name) for name in FLOOR_LABELS if name != "control_task")
    method = f"(method is null or method in ({sql_literal(chosen.method)}, 'random') or site is null)"
    floors = shown.query(
        f"select concept, control, site, stage, step, max(value) as floor from records where metric = {sql_literal(chosen.metric)} "
        f"and control in ({names}) and value is not null and not isnan(value) and {method} and (site is null or {here}) group by all"
    )
    best = cells.assign(floor=math.nan, floor_name="")
    levels = [
        (floors[floors["site"].isna() & floors["step"].isna()], ["concept"]),
        (floors[floors["site"].notna() & floors["step"].isna()], ["concept", "site"]),
        (floors[floors["site"].notna() & floors["step"].notna()], ["concept", "site", "stage", "step"]),
    ]
    for rows, keys in levels:
        if rows.empty:
            continue
        top = rows.sort_values("floor", kind="stable").drop_duplicates(keys, keep="last")
        top = top[[*keys, "floor", "control"]].rename(columns={"floor": "other", "control": "other_name"})
        if "stage" in keys:
            top = top.assign(stage=top["stage"].fillna(""), step=top["step"].astype("float64"))
        best = best.merge(top, on=keys, how="left")
        higher = best["other"].gt(best["floor"].fillna(-math.inf))
        best["floor"] = best["other"].where(higher, best["floor"])
        best["floor_name"] = best["other_name"].map(FLOOR_LABELS).where(higher, best["floor_name"])
        best = best.drop(columns=["other", "other_name"])
    return best


def difference_cells(cells: AtlasCells, chosen: Selection) -> pd.DataFrame:
    """Checkpoint B minus checkpoint A, cell by cell."""
    a, b = cells.at(chosen.stage, chosen.step), cells.at(chosen.other_stage, chosen.other_step)
    both = b.merge(a[["concept", "site", "value", "sure"]], on=["concept", "site"], suffixes=("", "_a"))
    return both.assign(
        before=both["value_a"],
        after=both["value"],
        value=both["value"] - both["value_a"],
        sure=both["sure"] | both["sure_a"],
    ).drop(columns=["value_a", "sure_a"])


def draw_atlas(shown: ShownRun, chosen: Selection, *, difference: bool = False) -> Any:
    """The chart of a selection, with the data set `cells`: the cells of its checkpoint, or the difference B − A."""
    cells = atlas_cells(shown, chosen)
    rows = difference_cells(cells, chosen) if difference else cells.at(chosen.stage, chosen.step)
    layers = sorted(cells.rows["layer"].dropna().unique())
    names = list(dict.fromkeys(cells.rows["row"]))
    heads = chosen.part in HEAD_PARTS
    if heads:
        names.sort(key=float)
    x = alt.X(
        "layer:O",
        scale=alt.Scale(domain=layers),
        axis=alt.Axis(title=f"layer ({chosen.part})", format="d", labelAngle=0),
    )
    y = alt.Y(
        "row:N",
        scale=alt.Scale(domain=names),
        sort=names,
        title="head" if heads else None,
        axis=alt.Axis(labelLimit=130),
    )
    base = alt.Chart(alt.NamedData("cells")).encode(x=x, y=y, tooltip=_tooltips(difference))
    colour = alt.Color(
        "value:Q", scale=_scale(cells.rows["value"], chosen.metric, difference), legend=_legend(chosen, difference)
    )
    squares = base.mark_rect(stroke="white", strokeWidth=1).encode(
        color=alt.condition("datum.sure", colour, alt.value(MISSING_COLOUR))
    )
    marks: list[Any] = [squares]
    if len(layers) <= _LABELLED_LAYERS and not (heads and len(names) > 16):
        dark = _dark(cells.rows["value"], chosen.metric, difference)
        ink = alt.condition(f"datum.sure && ({dark})", alt.value("white"), alt.value(INK_COLOUR))
        text = alt.Text("value:Q", format="+.2f" if difference else ".2f")
        marks.append(base.transform_filter("isValid(datum.value)").mark_text(fontSize=11).encode(text=text, color=ink))
    height = max(len(names) * (18 if heads else 26), 60)
    chart = apply_theme(alt.layer(*marks).properties(width="container", height=height))
    chart.datasets = {"cells": cell_values(rows)}
    of = f" of {heads_concept(shown, chosen)}" if heads else ""
    what = "B − A of " if difference else ""
    chart.description = f"{what}{_label(chosen.metric)}{of} at every layer; the rows are in the table behind the chart."
    return chart


def cell_values(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Cells as a chart reads them; NaN becomes null."""
    tidy = rows.astype(object).where(rows.notna(), None)
    return [
        {str(k): float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()}
        for row in tidy.to_dict("records")
    ]


def _label(metric: str) -> str:
    return SCORE_LABELS.get(metric, metric)


def _legend(chosen: Selection, difference: bool) -> alt.Legend:
    return alt.Legend(
        title=f"{_label(chosen.metric)}{', B − A' if difference else ''}", orient="top", gradientLength=180
    )


def _limits(values: pd.Series, metric: str, difference: bool) -> tuple[float, float]:
    """Ends of the colour scale, the same at all checkpoints."""
    if difference:
        return (-0.5, 0.5) if metric in CHANCE_SCORES else (-_extent(values), _extent(values))
    if metric in CHANCE_SCORES:
        return CHANCE_SCORES[metric], 1.0
    if values.min() < 0:
        return -_extent(values), _extent(values)
    return (0.0, 1.0) if 0.5 < values.max() <= 1 else (0.0, float(values.max()) if values.max() > 0 else 1.0)


def _extent(values: pd.Series) -> float:
    extent = float(values.abs().max())
    return extent if extent > 0 else 1.0


def _scale(values: pd.Series, metric: str, difference: bool) -> alt.Scale:
    low, high = _limits(values.dropna(), metric, difference)
    return alt.Scale(scheme=DIVERGING_SCHEME if low < 0 else SEQUENTIAL_SCHEME, domain=[low, high], clamp=True)


def _dark(values: pd.Series, metric: str, difference: bool) -> str:
    """Test for a cell that is so dark that its text is white."""
    low, high = _limits(values.dropna(), metric, difference)
    if low < 0:
        return f"abs(datum.value) > {0.7 * high:.6g}"
    return f"datum.value > {low + 0.55 * (high - low):.6g}"


def _tooltips(difference: bool) -> list[alt.Tooltip]:
    names = [alt.Tooltip("concept:N"), alt.Tooltip("site:N")]
    numbers = {"before": ("A", ".3f"), "after": ("B", ".3f"), "value": ("B − A", "+.3f")}
    if not difference:
        numbers = {
            "value": ("value", ".3f"),
            "low": ("95 % from", ".3f"),
            "high": ("95 % to", ".3f"),
            "n": ("examples", ",d"),
            "p": ("family-wise p", ".3f"),
            "floor": ("highest floor", ".3f"),
        }
    shown = [alt.Tooltip(f"{name}:Q", title=title, format=digits) for name, (title, digits) in numbers.items()]
    return [*names, *shown, *([] if difference else [alt.Tooltip("floor_name:N", title="that floor")])]
