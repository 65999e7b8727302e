"""Truth from stage to stage: are the directions the same, does one stage's probe read another, does its push move another's verdicts?

Above, stages × stages: the cosine of their directions; how well the probe along one stage's direction (across) tells true from false
statements in another (down); and how far a push along it moves the other's verdicts, where 1 is from all false to all true and a random
push is 0. Below: held-out statements of each stage, along its own direction and along what varies most beside it.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.sentences import format_score
from ontogeny.findings.table import ConceptRecords, coord_column, evenly_spread, mean_over_seeds
from ontogeny.findings.timeline import Timeline
from ontogeny.views._chart_parts import inline_rows, panel_title
from ontogeny.views._stage_grid import checkpoint_rows, stack_concepts
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, DIVERGING_SCHEME, INK_COLOUR, SEQUENTIAL_SCHEME

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
    return stack_concepts(records, select(records), _subject, title=title, what=what, spacing=36)


def _subject(subject: ConceptRecords, line: Timeline) -> list[Any]:
    rows, names = checkpoint_rows(subject, line, most=MOST)
    squares = [square for square in _squares(rows, names) if square is not None]
    beside = alt.hconcat(*squares, spacing=30).resolve_scale(color="independent") if squares else None
    return [beside, _clouds(rows, names)]


def _squares(table: pd.DataFrame, names: list[str]) -> list[Any]:
    table = table[table["control"].eq("") & table["moment"].isin(names) & table["other"].isin(names)]
    pushes = table["metric"].eq("push_effect") & coord_column(table, "length").ne("target")
    signed = alt.Scale(scheme=DIVERGING_SCHEME, domain=[-1, 1], reverse=True)
    return [
        _square(table[table["metric"].eq("stage_cosine")], names, "cosine of the directions", "stage", signed),
        _square(
            table[table["metric"].eq("stage_auroc")],
            names,
            "AUROC of the probe along it",
            "vector of",
            alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[0.5, 1], clamp=True),
        ),
        _square(table[pushes], names, "verdicts moved by a push along it", "vector of", signed),
    ]


def _square(rows: pd.DataFrame, names: list[str], what: str, across: str, scale: alt.Scale) -> Any:
    if rows.empty:
        return None
    cells = mean_over_seeds(rows, "moment", "other")
    cells = cells.assign(
        said=[format_score(value) for value in cells["value"]],
        ends=[f"[{format_score(a)}, {format_score(b)}]" for a, b in zip(cells["low"], cells["high"], strict=True)],
    )
    size = len(names)
    side = max(14.0, min(66.0, (CHART_WIDTH - 260) / 3 / size))
    base = alt.Chart(
        inline_rows(cells, "moment", "other", "value", "low", "high", "said", "ends", "concept", "site")
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
        strong = "abs(datum.value) > 0.7" if scale.scheme == DIVERGING_SCHEME else "datum.value > 0.8"
        light = alt.condition(strong, alt.value("white"), alt.value(INK_COLOUR))
        layers.append(base.mark_text(fontSize=12, dy=-6 if side >= 50 else 0).encode(text="said:N", color=light))
        if side >= 50:
            layers.append(base.mark_text(fontSize=9, dy=9, opacity=0.85).encode(text="ends:N", color=light))
    named = panel_title(what)
    named.subtitle = " · ".join(dict.fromkeys([str(rows["concept"].iloc[0]), str(rows["site"].iloc[0])]))
    return alt.layer(*layers).properties(width=side * size, height=side * size, title=named)


def _clouds(table: pd.DataFrame, names: list[str]) -> Any:
    rows = table[table["metric"].eq("stage_projection")]
    if rows.empty:
        return None
    rows = rows.assign(**{key: coord_column(rows, key) for key in ("axis", "example", "label", "text")})
    wide = rows.pivot_table(
        index=["moment", "example", "label", "text"], columns="axis", values="value", sort=False, aggfunc="first"
    ).reset_index()
    if not {"direction", "beside"} <= set(wide.columns):
        return None
    colour = alt.Color(
        "label:N",
        scale=alt.Scale(domain=["true", "false"], range=list(CATEGORY_COLOURS[:2])),
        legend=alt.Legend(title="held-out statements", orient="right"),
    )
    charts = []
    for name in evenly_spread([name for name in names if name in set(wide["moment"])], CLOUDS):
        points = wide[wide["moment"].eq(name)]
        cloud = alt.Chart(inline_rows(points, "direction", "beside", "label", "text")).mark_circle(
            size=26, opacity=0.65
        )
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
        charts.append(
            alt.layer(zero, cloud).properties(width=CHART_WIDTH / 4 - 50, height=150, title=panel_title(name))
        )
    return alt.hconcat(*charts, spacing=24)
