"""Vectors mapped into another model: effect at several doses, in multiples of the length of the target's own vector (arXiv:2503.21073).

One panel per concept. Lines: the target's own vector, the source's vector mapped by activations and by embeddings, and without a map; bands
are 95 % intervals. Dashed: maps fitted on shuffled pairs, the null of the line of the same colour. A mapped vector works where its line
leaves its dashed one, with the sign of the target's own.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import coord_column, records_by_concept, tidy_records
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import (
    colour_by_name,
    inline_rows,
    multiples_or_blank,
    number_tooltips,
    panel_title,
)
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._theme import CHART_WIDTH, INK_COLOUR

title = "Vectors mapped into another model"
place = 12
needs = frozenset({"concept", "site", "metric", "control", "value", "low", "high", "coords"})
METRICS = ("mapped_dose_effect",)
_NAMES = {
    "native": "the target's own",
    "activations": "by activations",
    "embeddings": "by embeddings",
    "identity": "without a map",
}
_UNITS = {"answers": "nats", "readout": "spreads"}
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    rows = table[table["value"].notna()]
    names = {column: coord_column(rows, column) for column in ("map", "outcome", "onto")}
    rows = rows.assign(dose=pd.to_numeric(coord_column(rows, "dose"), errors="coerce"), **names)
    rows = rows[rows["map"].isin(_NAMES) & rows["dose"].notna()]
    panels = [
        _panel(concept.rows[concept.rows["onto"].eq(target)], f"{concept.name} in {target}" if target else concept.name)
        for concept in records_by_concept(rows)
        for target in dict.fromkeys(concept.rows["onto"])
    ]
    chart = multiples_or_blank(
        panels, title, table, "a mapped vector (a transfer to another model makes them)", columns=2
    )
    if not panels:
        return chart
    return with_legend(
        chart,
        LegendEntry("mapped vector, with its 95 % interval", "line", INK_COLOUR),
        LegendEntry("maps of shuffled pairs", "line", INK_COLOUR, (4, 3)),
    )


def _panel(rows: pd.DataFrame, name: str) -> Any:
    rows = rows.assign(name=rows["map"].map(_NAMES)).sort_values("dose")
    measured, null = rows[rows["control"].eq("")], rows[rows["control"].ne("")]
    unit = _UNITS.get(str(rows["outcome"].iloc[0]), "nats")
    x = alt.X("dose:Q", title="length (times the vector)", axis=alt.Axis(values=sorted(set(rows["dose"])), format="~g"))
    y = {"title": f"effect ({unit})", "scale": alt.Scale(zero=True)}
    colour = colour_by_name(list(_NAMES.values()))
    base = Chart(inline_rows(measured, "name", "dose", "value", "low", "high")).encode(x=x, color=colour)
    tooltip = ["name:N", *number_tooltips("dose", "value", "low", "high")]
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", **y), y2="high:Q")
    lines = base.mark_line(strokeWidth=2, point={"size": 18}).encode(y=alt.Y("value:Q", **y), tooltip=tooltip)
    dashed = Chart(inline_rows(null, "name", "dose", "value")).mark_line(strokeWidth=1.2, strokeDash=[4, 3])
    layers = [*([band] if measured["low"].notna().any() else []), lines]
    layers += [dashed.encode(x=x, y=alt.Y("value:Q", **y), color=colour)] if len(null) else []
    return overlay(*layers).properties(width=CHART_WIDTH / 2 - 120, height=190, title=panel_title(name))
