"""Truth from stage to stage: are the directions the same, does one stage's probe read another, does its push move another's verdicts?

Above, stages × stages: the cosine of their directions; how well the probe of one (across) tells true from false statements in another
(down); and how far a push along one stage's direction (across) moves the verdicts of another (down), where 1 is from all false to all
true and a random push is 0. Below: held-out statements of each stage, along its own direction and along what varies most beside it.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.compare import labelled, stage_names
from ontogeny.findings.sentences import number
from ontogeny.findings.table import coord
from ontogeny.views._pieces import blank, heading, inline, reason
from ontogeny.views._theme import CATEGORIES, INK, MAGNITUDE, SIGNED, WIDTH

title = "Truthfulness, stage by stage"
place = 12
needs = frozenset({"stage", "step", "metric", "value", "coords", "control", "concept"})
METRICS = ("stage_cosine", "stage_auroc", "push_effect", "stage_projection")
CLOUDS = 4
"""Stages whose statements are drawn: the first, the last, and some between."""


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin(METRICS)]


def draw(records: pd.DataFrame) -> Any:
    table = labelled(select(records))
    # The order of the stages is the whole table's.
    names = [name for name in stage_names(labelled(records)) if name in set(table["here"])]
    drawn = []
    for concept in dict.fromkeys(table["concept"]):
        own = table[table["concept"].eq(concept)]
        squares = [square for square in _squares(own, names) if square is not None]
        if squares:
            rows = alt.hconcat(*squares, spacing=30).resolve_scale(color="independent")
            clouds = _clouds(own, names)
            both = rows if clouds is None else alt.vconcat(rows, clouds, spacing=30).resolve_scale(color="independent")
            drawn.append(both)
    if not drawn:
        return blank(title, reason(table, "stage_cosine (ontogeny compare makes them)"))
    return alt.vconcat(*drawn, spacing=40) if len(drawn) > 1 else drawn[0]


def _squares(table: pd.DataFrame, names: list[str]) -> list[Any]:
    length = coord(table, "length")
    cosines = table["metric"].eq("stage_cosine")
    aurocs = table["metric"].eq("stage_auroc")
    pushes = table["metric"].eq("push_effect") & length.eq("source")
    signed = alt.Scale(scheme=SIGNED, domain=[-1, 1], reverse=True)
    return [
        _square(table[cosines], names, "cosine of the directions", "", "the other stage", signed),
        _square(
            table[aurocs], names, "AUROC of probes", "probe of", "read in", alt.Scale(scheme=MAGNITUDE, domain=[0.5, 1])
        ),
        _square(table[pushes], names, "verdicts moved by a push", "direction of", "pushed", signed),
    ]


def _square(rows: pd.DataFrame, names: list[str], what: str, across: str, down: str, scale: alt.Scale) -> Any:
    rows = rows[rows["control"].eq("") & rows["value"].notna()]
    if rows.empty:
        return None
    size = len(names)
    room = (WIDTH - 200) / 3
    side = max(14.0, min(66.0, room / size))
    cells = rows.assign(
        said=[number(value) for value in rows["value"]],
        ends=[f"[{number(a)}, {number(b)}]" for a, b in zip(rows["low"], rows["high"], strict=True)],
    )
    base = alt.Chart(inline(cells, "here", "there", "value", "low", "high", "said", "ends", "concept", "site")).encode(
        x=alt.X("there:N", sort=names, title=across or None, axis=alt.Axis(labelAngle=-35 if size > 3 else 0)),
        y=alt.Y("here:N", sort=names, title=down if across else None),
    )
    tips = [alt.Tooltip("there:N", title=across or "and"), alt.Tooltip("here:N", title=down if across else "of")]
    tips += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high")]
    squares = base.mark_rect(stroke="white", strokeWidth=1).encode(
        color=alt.Color("value:Q", scale=scale, legend=None), tooltip=[*tips, "concept:N", "site:N"]
    )
    layers = [squares]
    if side >= 30:
        strong = "abs(datum.value) > 0.7" if scale.scheme == SIGNED else "datum.value > 0.8"
        light = alt.condition(strong, alt.value("white"), alt.value(INK))
        layers.append(base.mark_text(fontSize=12, dy=-6 if side >= 50 else 0).encode(text="said:N", color=light))
        if side >= 50:
            layers.append(base.mark_text(fontSize=9, dy=9, opacity=0.85).encode(text="ends:N", color=light))
    named = heading(what)
    named.subtitle = " · ".join(dict.fromkeys([str(rows["concept"].iloc[0]), str(rows["site"].iloc[0])]))
    return alt.layer(*layers).properties(width=side * size, height=side * size, title=named)


def _clouds(table: pd.DataFrame, names: list[str]) -> Any:
    rows = table[table["metric"].eq("stage_projection")]
    if rows.empty:
        return None
    rows = rows.assign(**{key: coord(rows, key) for key in ("axis", "example", "label", "text")})
    wide = rows.pivot_table(
        index=["here", "example", "label", "text"], columns="axis", values="value", sort=False, aggfunc="first"
    ).reset_index()
    drawn = [name for name in names if name in set(wide["here"])]
    if len(drawn) > CLOUDS:
        drawn = [drawn[round(i * (len(drawn) - 1) / (CLOUDS - 1))] for i in range(CLOUDS)]
    colour = alt.Color(
        "label:N",
        scale=alt.Scale(domain=["true", "false"], range=list(CATEGORIES[:2])),
        legend=alt.Legend(title="held-out statements", orient="right"),
    )
    charts = []
    for name in drawn:
        points = wide[wide["here"].eq(name)]
        cloud = alt.Chart(inline(points, "direction", "beside", "label", "text")).mark_circle(size=26, opacity=0.65)
        cloud = cloud.encode(
            x=alt.X("direction:Q", title="along its direction", axis=alt.Axis(ticks=False, labels=False, grid=False)),
            y=alt.Y("beside:Q", title="along the rest", axis=alt.Axis(ticks=False, labels=False, grid=False)),
            color=colour,
            tooltip=["text:N", "label:N"],
        )
        zero = (
            alt.Chart(alt.InlineData(values=[{"x": 0}])).mark_rule(color="#b9c0c8", strokeDash=[3, 3]).encode(x="x:Q")
        )
        charts.append(alt.layer(zero, cloud).properties(width=WIDTH / 4 - 50, height=150, title=heading(name)))
    return alt.hconcat(*charts, spacing=24)
