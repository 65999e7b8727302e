"""Paths in concept space: colour and size of the images of small blue circles over training, and some of the images.

0 is the mean of the shown combinations, 1 the held-out one. Lines are seeds from their first measured step to the last, a dot; the
dashed line is the two-layer linear theory, with nothing fitted. A path that bows has learned the concept on that axis first. Pictures are
stored with the run.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.sentences import format_step
from ontogeny.findings.table import coord_column, evenly_spread, tidy_records
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import blank_chart, inline_rows, missing_rows_reason, panel_title
from ontogeny.views._layout import Chart, hconcat, overlay, vconcat
from ontogeny.views._legend import LegendEntry, with_legend
from ontogeny.views._pictures import checked_picture
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR, MUTED_COLOUR

title = "Paths in concept space"
place = 48
needs = frozenset({"step", "stage", "train_seed", "metric", "value", "coords"})
_COLOUR, _SIZE, _IMAGE = "path_colour", "path_size", "generated_image"
select = rows_with_metrics(_COLOUR, _SIZE, _IMAGE)
where = metric_condition(_COLOUR, _SIZE, _IMAGE)
CONDITIONS, STEPS, IMAGES = 4, 9, 2
"""Most conditions, steps and images of a way of asking that are drawn."""
_SIDE, _LIMIT = 62, (-1.0, 1.6)
"""Side of a picture in px, and range of both concepts; what leaves it is drawn at its edge."""
_KEY = (
    LegendEntry("a seed over training", "line", CATEGORY_COLOURS[0]),
    LegendEntry("two-layer linear theory", "line", INK_COLOUR, (5, 4)),
)


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    paths, pictures = _paths(table), _pictures(table)
    parts = [part for part in (paths, pictures) if part is not None]
    if not parts:
        return blank_chart(title, missing_rows_reason(table, f"{_COLOUR} and {_SIZE}"))
    return with_legend(vconcat(*parts, spacing=26), *_KEY)


def _paths(table: pd.DataFrame) -> Any:
    rows = table[table["metric"].isin([_COLOUR, _SIZE]) & table["value"].notna()]
    if rows.empty:
        return None
    keys = ["stage", "control", "train_seed", "step"]
    wide = rows.pivot_table(index=keys, columns="metric", values="value", dropna=True, sort=False).reset_index()
    if not {_COLOUR, _SIZE} <= set(wide.columns):
        return None
    points = wide.dropna(subset=[_COLOUR, _SIZE]).rename(columns={_COLOUR: "colour", _SIZE: "size"})
    names = evenly_spread(list(dict.fromkeys(points["stage"])), CONDITIONS)
    return hconcat(*(_panel(points[points["stage"].eq(name)], name) for name in names), spacing=18)


def _panel(points: pd.DataFrame, name: str) -> Any:
    points = points.sort_values("step").assign(
        x=points["colour"].clip(*_LIMIT), y=points["size"].clip(*_LIMIT), kind=points["control"].replace("", "measured")
    )
    scale = alt.Scale(domain=list(_LIMIT))
    axis = alt.Axis(values=[-1, 0, 1], format="d")
    measured = points[points["control"].eq("")]
    last = measured.drop_duplicates("train_seed", keep="last")

    def encoded(rows: pd.DataFrame) -> Any:
        columns = ("x", "y", "train_seed", "step", "kind", "colour", "size")
        return Chart(inline_rows(rows, *columns)).encode(
            x=alt.X("x:Q", scale=scale, axis=axis, title="colour (units of the target)"),
            y=alt.Y("y:Q", scale=scale, axis=axis, title="size (units of the target)"),
            order="step:Q",
            tooltip=["kind:N", alt.Tooltip("train_seed:Q", title="seed"), "step:Q", *_numbers("colour", "size")],
        )

    theory = points[points["control"].ne("")].drop_duplicates("step")
    target = Chart(alt.InlineData(values=[{"x": 1, "y": 1}])).mark_point(shape="cross", size=60, color=MUTED_COLOUR)
    layers = [
        target.encode(x=alt.X("x:Q", scale=scale), y=alt.Y("y:Q", scale=scale)),
        encoded(theory).mark_line(color=INK_COLOUR, strokeDash=[5, 4], strokeWidth=1.6),
        encoded(measured)
        .mark_line(color=CATEGORY_COLOURS[0], strokeWidth=1.1, opacity=0.7)
        .encode(detail="train_seed:N"),
        encoded(last).mark_circle(color=CATEGORY_COLOURS[0], size=40, opacity=1),
    ]
    side = CHART_WIDTH / CONDITIONS - 70
    return overlay(*layers).properties(width=side, height=side, title=panel_title(name))


def _numbers(*names: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", format=".2f") for name in names]


def _pictures(table: pd.DataFrame) -> Any:
    """Images by way of asking (rows) and training step (columns), of the first seed."""
    rows = table[table["metric"].eq(_IMAGE) & table["value"].notna() & table["step"].notna()]
    rows = rows.assign(
        picture=[checked_picture(text) for text in coord_column(rows, "picture")],
        name=coord_column(rows, "name"),
        image=pd.to_numeric(coord_column(rows, "image"), errors="coerce"),
    )
    rows = rows[rows["picture"].ne("") & rows["image"].le(IMAGES)]
    if rows.empty:
        return None
    rows = rows[rows["train_seed"].eq(rows["train_seed"].min())]
    steps = evenly_spread(sorted(rows["step"].unique()), STEPS)
    rows = rows[rows["step"].isin(steps)].sort_values(["image", "step"])
    label = [f"{name} {image:.0f}" for name, image in zip(rows["name"], rows["image"], strict=True)]
    rows = rows.assign(label=label, at=[format_step(step) for step in rows["step"]])
    names = list(dict.fromkeys(rows["name"]))
    order = sorted(dict.fromkeys(label), key=lambda text: (names.index(text.rpartition(" ")[0]), text))
    base = Chart(inline_rows(rows, "label", "at", "picture")).encode(
        x=alt.X("at:N", sort=[format_step(step) for step in steps], title="training step", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("label:N", sort=order, title="way of asking, image (number in the file)"),
        tooltip=[alt.Tooltip("label:N", title="way of asking, image"), alt.Tooltip("at:N", title="step")],
    )
    shown = base.mark_image(width=_SIDE, height=_SIDE, smooth=False).encode(url="picture:N")
    frame = base.mark_rect(fill="transparent", stroke=MUTED_COLOUR, strokeWidth=0.5, width=_SIDE, height=_SIDE)
    step = {"step": _SIDE + 6}
    return overlay(shown, frame).properties(
        width=step, height=step, title=panel_title("Images for small blue circles, one seed")
    )
