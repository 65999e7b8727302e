"""Points of a study: one metric over another, a point for each condition and seed; null runs are hollow.

Rows with `coords.place` are things in an order, such as the entities of a ring: a panel per condition and seed, with a line through its
points.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.jobs.study.paper_study import StudyPicture
from ontogeny.views._chart_parts import apply_theme, blank_chart, colour_by_name, inline_rows
from ontogeny.views._layout import Chart, concat
from ontogeny.views._theme import CHART_WIDTH, MUTED_COLOUR, ORDINAL_SCHEME

_FEW_VALUES = 6
"""Up to so many values of x, each has a tick."""
_MOST_SEEDS = 3
"""Seeds whose things are drawn in their order."""


def draw_study_points(records: pd.DataFrame, picture: StudyPicture) -> Any:
    """The themed chart of a picture of points; without such rows, a chart that says so."""
    points = _joined(records, picture)
    if points.empty:
        return apply_theme(blank_chart(picture.title, f"No rows of {' and '.join(picture.metrics)} in this run."))
    return apply_theme(_paths(points, picture) if points["place"].notna().all() else _scatter(points, picture))


def _joined(records: pd.DataFrame, picture: StudyPicture) -> pd.DataFrame:
    """One row a point: x, y, condition, control, seed and place."""
    rows = records[records["metric"].isin(picture.metrics) & records["value"].notna()]
    if picture.conditions:
        rows = rows[rows["stage"].isin(picture.conditions)]
    if rows.empty:
        return pd.DataFrame(columns=["x", "y", "name", "kind", "seed", "place"])
    coords = rows["coords"].map(lambda given: tuple(sorted(dict(given).items())))
    rows = rows.assign(coords=coords, control=rows["control"].fillna(""), step=rows["step"].fillna(-1))
    wide = rows.pivot_table(
        index=["stage", "control", "train_seed", "step", "coords"], columns="metric", values="value", sort=False
    ).reset_index()
    x, y = picture.metrics
    if not {x, y} <= set(wide.columns):
        return pd.DataFrame(columns=["x", "y", "name", "kind", "seed", "place"])
    wide = wide.rename(columns={x: "x", y: "y", "stage": "name", "train_seed": "seed"}).dropna(subset=["x", "y"])
    kinds = ["measured" if not control else f"null run: {control.replace('_', ' ')}" for control in wide["control"]]
    places = [float(dict(given).get("place", "nan")) for given in wide["coords"]]
    return wide.assign(kind=kinds, place=places)


def _scatter(points: pd.DataFrame, picture: StudyPicture) -> Any:
    # Conditions such as "rome, distance 4" share the colour of their first word.
    points = points.assign(condition=points["name"], name=[name.partition(",")[0] for name in points["name"]])
    names, kinds = list(dict.fromkeys(points["name"])), list(dict.fromkeys(points["kind"]))
    x, y = (
        alt.Scale(type="log", padding=20, nice=False)
        if log and (points[axis] > 0).all()
        else alt.Scale(zero=False, padding=20)
        for axis, log in (("x", picture.log_x), ("y", picture.log_y))
    )
    steps = sorted(points["x"].unique())
    axis = alt.Axis(values=steps, format="~g") if len(steps) <= _FEW_VALUES else alt.Axis()
    shapes = ["circle", "diamond", "triangle-up", "square"][: len(kinds)]
    return (
        Chart(inline_rows(points, "x", "y", "name", "condition", "kind", "seed"))
        .mark_point(size=42, strokeWidth=1.3)
        .encode(
            x=alt.X("x:Q", scale=x, axis=axis, title=_words(picture.metrics[0])),
            y=alt.Y("y:Q", scale=y, title=_words(picture.metrics[1])),
            color=colour_by_name(names),
            shape=alt.Shape("kind:N", scale=alt.Scale(domain=kinds, range=shapes), legend=alt.Legend(title=None)),
            fillOpacity=alt.condition("datum.kind == 'measured'", alt.value(0.6), alt.value(0)),
            tooltip=[
                "condition:N", "kind:N", alt.Tooltip("x:Q", format=".4g"), alt.Tooltip("y:Q", format=".4g"),
                "seed:Q",
            ],
        )
        .properties(width=CHART_WIDTH - 260, height=300)
    )  # fmt: skip


def _paths(points: pd.DataFrame, picture: StudyPicture) -> Any:
    """A row for each of the first seeds, a panel per condition: things in their order, the last joined to the first."""
    places = {name: number for number, name in enumerate(picture.conditions)}
    points = points[points["seed"].isin(sorted(points["seed"].unique())[:_MOST_SEEDS])].sort_values("place")
    groups = sorted(
        points.groupby(["seed", "name", "kind"], sort=False),
        key=lambda group: (group[0][0], places.get(str(group[0][1]), len(places)), group[0][2] != "measured"),
    )
    columns = max(1, len(points.groupby(["name", "kind"])))
    side = CHART_WIDTH / max(columns, 4) - 30
    panels = []
    for (seed, name, kind), own in groups:
        closed = pd.concat([own, own.head(1)]).assign(number=range(len(own) + 1))
        title = [str(name), f"seed {seed:.0f}" if kind == "measured" else f"seed {seed:.0f}, {kind}"]
        hidden = alt.Axis(labels=False, ticks=False, domain=False, grid=False, title=None)
        base = Chart(inline_rows(closed, "x", "y", "place", "number")).encode(
            x=alt.X("x:Q", axis=hidden), y=alt.Y("y:Q", axis=hidden)
        )
        line = base.mark_line(color=MUTED_COLOUR, strokeWidth=1, opacity=0.7).encode(order="number:Q")
        dots = base.mark_circle(size=60, opacity=1).encode(
            color=alt.Color("place:O", scale=alt.Scale(scheme=ORDINAL_SCHEME), legend=None),
            tooltip=[alt.Tooltip("place:Q", title="place in the order")],
        )
        panels.append((line + dots).properties(width=side, height=side, title={"text": title[0], "subtitle": title[1]}))
    return concat(*panels, columns=columns, spacing=20)


def _words(metric: str) -> str:
    return metric.replace("_", " ")
