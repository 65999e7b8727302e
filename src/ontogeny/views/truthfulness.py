"""Truth from stage to stage: are the directions the same, does one stage's probe read another, does its push move another's verdicts?

Above, stages × stages: the cosine of their directions; how well the probe along one stage's direction (across) tells true from false
statements in another (down); and how far a push along it moves the other's verdicts, where 1 is from all false to all true and a random
push is 0. Below: held-out statements of each stage, along its own direction and along what varies most beside it.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.sentences import number
from ontogeny.findings.table import Subject, coord, over_seeds
from ontogeny.findings.timeline import Timeline
from ontogeny.views._moments import at_stages, one_under_another, thin
from ontogeny.views._pieces import heading, inline
from ontogeny.views._theme import CATEGORIES, INK, MAGNITUDE, SIGNED, WIDTH

title = "Truthfulness, stage by stage"
place = 12
needs = frozenset({"stage", "step", "metric", "value", "coords", "control", "concept"})
METRICS = ("stage_cosine", "stage_auroc", "push_effect", "stage_projection")
MOST = 16
"""Stages drawn in the squares."""
CLOUDS = 4
"""Stages whose statements are drawn: the first, the last, and some between."""


def select(records: pd.DataFrame) -> pd.DataFrame:
    return records[records["metric"].isin(METRICS)]


def draw(records: pd.DataFrame) -> Any:
    what = "stage_cosine or push_effect"
    return one_under_another(records, select(records), _subject, title=title, what=what, spacing=36)


def _subject(subject: Subject, line: Timeline) -> list[Any]:
    rows, names = at_stages(subject, line, most=MOST)
    squares = [square for square in _squares(rows, names) if square is not None]
    beside = alt.hconcat(*squares, spacing=30).resolve_scale(color="independent") if squares else None
    return [beside, _clouds(rows, names)]


def _squares(table: pd.DataFrame, names: list[str]) -> list[Any]:
    table = table[table["control"].eq("") & table["moment"].isin(names) & table["other"].isin(names)]
    pushes = table["metric"].eq("push_effect") & coord(table, "length").ne("target")
    signed = alt.Scale(scheme=SIGNED, domain=[-1, 1], reverse=True)
    return [
        _square(table[table["metric"].eq("stage_cosine")], names, "cosine of the directions", "stage", signed),
        _square(
            table[table["metric"].eq("stage_auroc")],
            names,
            "AUROC of the probe along it",
            "vector of",
            alt.Scale(scheme=MAGNITUDE, domain=[0.5, 1], clamp=True),
        ),
        _square(table[pushes], names, "verdicts moved by a push along it", "vector of", signed),
    ]


def _square(rows: pd.DataFrame, names: list[str], what: str, across: str, scale: alt.Scale) -> Any:
    if rows.empty:
        return None
    cells = over_seeds(rows, "moment", "other")
    cells = cells.assign(
        said=[number(value) for value in cells["value"]],
        ends=[f"[{number(a)}, {number(b)}]" for a, b in zip(cells["low"], cells["high"], strict=True)],
    )
    size = len(names)
    side = max(14.0, min(66.0, (WIDTH - 260) / 3 / size))
    base = alt.Chart(
        inline(cells, "moment", "other", "value", "low", "high", "said", "ends", "concept", "site")
    ).encode(
        x=alt.X("other:N", sort=names, title=across, axis=alt.Axis(labelAngle=-35 if size > 3 else 0)),
        y=alt.Y("moment:N", sort=names, title="stage"),
    )
    tips = [alt.Tooltip("other:N", title=across), alt.Tooltip("moment:N", title="stage")]
    tips += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high")]
    # Cells too small for numbers need a scale.
    legend = None if side >= 30 else alt.Legend(title=None, orient="right", gradientLength=120)
    squares = base.mark_rect(stroke="white", strokeWidth=1).encode(
        color=alt.Color("value:Q", scale=scale, legend=legend), tooltip=[*tips, "concept:N", "site:N"]
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
        index=["moment", "example", "label", "text"], columns="axis", values="value", sort=False, aggfunc="first"
    ).reset_index()
    if not {"direction", "beside"} <= set(wide.columns):
        return None
    colour = alt.Color(
        "label:N",
        scale=alt.Scale(domain=["true", "false"], range=list(CATEGORIES[:2])),
        legend=alt.Legend(title="held-out statements", orient="right"),
    )
    charts = []
    for name in thin([name for name in names if name in set(wide["moment"])], CLOUDS):
        points = wide[wide["moment"].eq(name)]
        cloud = alt.Chart(inline(points, "direction", "beside", "label", "text")).mark_circle(size=26, opacity=0.65)
        cloud = cloud.encode(
            x=alt.X(
                "direction:Q",
                title="along its direction (units of the stream)",
                axis=alt.Axis(ticks=False, labels=False, grid=False),
            ),
            y=alt.Y(
                "beside:Q",
                title="beside it (units of the stream)",
                axis=alt.Axis(ticks=False, labels=False, grid=False),
            ),
            color=colour,
            tooltip=["text:N", "label:N"],
        )
        zero = (
            alt.Chart(alt.InlineData(values=[{"x": 0}])).mark_rule(color="#b9c0c8", strokeDash=[3, 3]).encode(x="x:Q")
        )
        charts.append(alt.layer(zero, cloud).properties(width=WIDTH / 4 - 50, height=150, title=heading(name)))
    return alt.hconcat(*charts, spacing=24)
