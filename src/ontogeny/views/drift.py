"""How stable each concept's direction is through training: the cosine of its directions at any two checkpoints.

A dark square that begins at some step means that the direction was found there and kept; a thin diagonal means that it keeps
turning. Where only the cosine with the last or the preceding checkpoint was measured, that is drawn as a curve.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.table import Subject, best_sites, coord, has_coord, over_seeds, subjects, tidy, wanted
from ontogeny.findings.timeline import Timeline, timeline
from ontogeny.views._axes import age_axis, stage_crosses, stage_rules, step_axis, thinned
from ontogeny.views._pieces import blank, heading, inline, panels, reason
from ontogeny.views._theme import CATEGORIES, SIGNED, WIDTH

title = "Drift of directions"
place = 7
needs = frozenset({"step", "concept", "site", "metric", "value", "coords"})

CURVES = {"cosine_final": "with the last checkpoint", "cosine_previous": "with the preceding one"}
MOST = 48
"""Checkpoints drawn: a matrix has their square."""


def select(records: pd.DataFrame) -> pd.DataFrame:
    pairs = records["metric"].eq("cosine") & has_coord(records, "other_step")
    return records[pairs | records["metric"].isin([*CURVES, "best_site"])]


def draw(records: pd.DataFrame) -> Any:
    table, line, fewer = thinned(tidy(select(records)), timeline(records), MOST)
    drawn = [chart for s in subjects(table) if (chart := _panel(s, line, fewer)) is not None]
    measured = table[table["metric"].isin(["cosine", *CURVES])]
    return panels(drawn) if drawn else blank(title, reason(measured, "the cosine of two checkpoints' directions"))


def _panel(subject: Subject, line: Timeline, fewer: str) -> Any:
    rows = wanted(subject.rows, "cosine", *CURVES)
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return None
    best = best_sites(subject.rows)["site"]
    pairs = rows[rows["metric"].eq("cosine")]
    rows = pairs if len(pairs) else rows
    site = next((s for s in best if s in set(rows["site"])), rows["site"].iloc[-1])
    rows = rows[rows["site"].eq(site)]
    rows = rows[rows["method"].eq(rows["method"].iloc[0])].assign(name=subject.name)
    chart = _matrix(rows, line) if len(pairs) else _curves(rows, line)
    named = heading(subject.name)
    named.subtitle = " · ".join(said for said in (site, rows["method"].iloc[0], fewer) if said)
    return None if chart is None else chart.properties(title=named, width=WIDTH / 3 - 60)


def _matrix(rows: pd.DataFrame, line: Timeline) -> Any:
    rows = rows.assign(
        other=pd.to_numeric(coord(rows, "other_step"), errors="coerce"), other_stage=coord(rows, "other_stage")
    )
    rows["other_stage"] = rows["other_stage"].where(rows["other_stage"].ne(""), rows["stage"])
    others = line.moments[["stage", "step", "age_low", "age_high"]].set_axis(
        ["other_stage", "other", "low", "high"], axis=1
    )
    cells = over_seeds(
        line.place(rows).drop(columns=["low", "high"]).merge(others, on=["other_stage", "other"]),
        "other_stage",
        "other",
    )
    if cells.empty:
        return None
    columns = ("name", "site", "stage", "step", "other_stage", "other", "value", "age_low", "age_high", "low", "high")
    scale = alt.Scale(scheme=SIGNED, domain=[-1, 1], reverse=True)
    legend = alt.Legend(title="cosine", orient="bottom", type="gradient", gradientLength=260)
    told = [alt.Tooltip("name:N", title="concept"), alt.Tooltip("stage:N"), alt.Tooltip("step:Q", format=",")]
    told += [
        alt.Tooltip("other_stage:N"),
        alt.Tooltip("other:Q", format=","),
        alt.Tooltip("value:Q", title="cosine", format=".3f"),
    ]
    drawn = alt.Chart(inline(cells, *columns)).mark_rect(x2Offset=0.6, y2Offset=0.6)
    drawn = drawn.encode(
        x=step_axis(line, ticks=5, brief=True, field="age_low"),
        x2="age_high:Q",
        y=age_axis(line, ticks=6, brief=True, field="low"),
        y2="high:Q",
        color=alt.Color("value:Q", scale=scale, legend=legend),
        tooltip=told,
    )
    return alt.layer(drawn, *stage_crosses(line)).properties(height=WIDTH / 3 - 60)


def _curves(rows: pd.DataFrame, line: Timeline) -> Any:
    placed = over_seeds(line.place(rows), "site", "metric")
    placed = placed.assign(against=placed["metric"].map(CURVES))
    if placed.empty:
        return None
    scale = alt.Scale(domain=list(CURVES.values()), range=list(CATEGORIES[:2]))
    drawn = alt.Chart(inline(placed, "name", "age", "stage", "step", "against", "value")).mark_line(point=True)
    drawn = drawn.encode(
        x=step_axis(line, ticks=5, brief=True),
        y=alt.Y(
            "value:Q", title="cosine (−1 to 1)", scale=alt.Scale(domain=[min(0.0, float(placed["value"].min())), 1])
        ),
        color=alt.Color("against:N", scale=scale, legend=alt.Legend(title="cosine", orient="bottom")),
        tooltip=[
            "name:N",
            "stage:N",
            alt.Tooltip("step:Q", format=","),
            "against:N",
            alt.Tooltip("value:Q", format=".3f"),
        ],
    )
    return alt.layer(*stage_rules(line, height=150, names=False), drawn).properties(height=150)
