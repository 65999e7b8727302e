"""Cosine of the directions of each pair of concepts at the last checkpoint, at one site.

Blue: same direction, so a probe for one concept reads the other and steering one moves the other; orange: opposite direction.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.sentences import format_score
from ontogeny.findings.table import coord_column, has_coord, select_rows, tidy_records
from ontogeny.findings.timeline import make_timeline
from ontogeny.records import checkpoint_label
from ontogeny.views._chart_parts import (
    blank_chart,
    inline_rows,
    labelled_cells,
    missing_rows_reason,
    panel_title,
    small_multiples,
)
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._theme import DIVERGING_SCHEME

title = "Concepts against concepts"
place = 8
together = True
needs = frozenset({"step", "concept", "site", "metric", "value", "coords"})
where = "metric = 'best_site' or (metric = 'cosine' and coords['other_concept'] is not null)"


def select(records: pd.DataFrame) -> pd.DataFrame:
    pairs = records["metric"].eq("cosine") & has_coord(records, "other_concept")
    return records[pairs | records["metric"].eq("best_site")]


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    pairs = select_rows(table, "cosine").assign(other=lambda rows: coord_column(rows, "other_concept"))
    shown = pairs[pairs["value"].notna() & pairs["step"].notna()]
    if shown.empty:
        return blank_chart(title, missing_rows_reason(pairs, "the cosine of two concepts"))
    best = select_rows(table, "best_site", control=None)["site"]
    runs = shown.groupby(["lineage", "train_seed"], sort=False, dropna=False)
    return small_multiples([_panel(str(lineage), rows, best, len(runs) > 1) for (lineage, _), rows in runs])


def _headline(cells: pd.DataFrame) -> str:
    """The two most similar concepts."""
    pairs = cells[cells["concept"].ne(cells["other"])]
    if pairs.empty:
        return "One concept"
    near = pairs.iloc[int(pairs["value"].abs().argmax())]
    return f"Nearest pair: {near['concept']} and {near['other']}, cosine {near['label']}"


def _panel(lineage: str, rows: pd.DataFrame, best: pd.Series, several: bool) -> Any:
    site = next((s for s in best.value_counts().index if s in set(rows["site"])), rows["site"].iloc[-1])
    rows = make_timeline(rows).last(rows[rows["site"].eq(site)])
    rows = rows[rows["method"].eq(rows["method"].iloc[0])]
    order = list(dict.fromkeys([*rows["concept"], *rows["other"]]))
    # Each pair is drawn both ways; the diagonal is 1 by definition.
    swapped = rows.rename(columns={"concept": "other", "other": "concept"})
    same = pd.DataFrame({"concept": order, "other": order, "value": 1.0})
    cells = pd.concat([rows, swapped, same])[["concept", "other", "value"]]
    cells = cells.groupby(["concept", "other"], sort=False)["value"].first().reset_index()
    cells["label"] = [format_score(value) for value in cells["value"]]
    side = max(16, min(54, 420 / len(order)))
    base = Chart(inline_rows(cells)).encode(
        x=alt.X("other:N", sort=order, title="concept", axis=alt.Axis(labelAngle=-35, orient="bottom", labelLimit=160)),
        y=alt.Y("concept:N", sort=order, title="concept", axis=alt.Axis(labelLimit=160)),
    )
    scale = alt.Scale(scheme=DIVERGING_SCHEME, domain=[-1, 1], reverse=True)
    legend = alt.Legend(title="cosine", orient="right", gradientLength=160)
    colour = alt.Color("value:Q", scale=scale, legend=legend)
    tooltip = ["concept:N", "other:N", alt.Tooltip("value:Q", title="cosine", format=".3f")]
    # Numbers need room; the tooltip has them in any case.
    labels = {"label": {"fontSize": 11}} if side > 26 else {}
    layers = labelled_cells(base, colour, tooltip, "abs(datum.value) > 0.7", **labels)
    stage, step, method = (rows[name].iloc[0] for name in ("stage", "step", "method"))
    at = checkpoint_label(stage, None if step % 1 else step)
    heading = panel_title(_headline(cells), lineage * several, site, at, method)
    return overlay(*layers).properties(width=side * len(order), height=side * len(order), title=heading)
