"""Scenes of a diffusion model as pictures: the image on its way from noise, what is read of it early, and the image after pushes.

Below each picture is Dice of its mask with the mask of the image, or with the new mask where activations were pushed. Masks are white, and
near is dark in a depth. A push “to another” is as long and to the new mask of another image. Pictures are stored with the run.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.selection import metric_condition
from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import blank_chart, inline_rows, missing_rows_reason
from ontogeny.views._layout import Chart, overlay
from ontogeny.views._pictures import checked_picture
from ontogeny.views._theme import INK_COLOUR, MUTED_COLOUR

title = "Scenes from noise to image"
place = 47
needs = frozenset({"step", "train_seed", "metric", "value", "coords"})
select = rows_with_metrics("picture")
where = metric_condition("picture")
IMAGES = 6
_SIDE, _LINE = 58, 13
"""Side of a picture, and height of a line of its name, in px."""


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    pictures = table[table["value"].notna()]
    pictures = pictures.assign(
        picture=[checked_picture(text) for text in coord_column(pictures, "picture")],
        image=pd.to_numeric(coord_column(pictures, "image"), errors="coerce"),
        place=pd.to_numeric(coord_column(pictures, "place"), errors="coerce"),
        name=coord_column(pictures, "name"),
    )
    pictures = pictures[pictures["picture"].ne("") & pictures["image"].notna() & pictures["place"].notna()]
    if pictures.empty:
        unsafe = "No picture in this table is a small PNG as a data URL."
        return blank_chart(title, unsafe if table["value"].notna().any() else missing_rows_reason(table, "a picture"))
    for column, chosen in (("train_seed", pictures["train_seed"].min()), ("step", pictures["step"].max())):
        pictures = pictures[pictures[column].eq(chosen) | pictures[column].isna()]
    pictures = pictures[pictures["image"].rank(method="dense").le(IMAGES)].sort_values(["place", "image"])
    names = list(pictures["name"].unique())
    lines = max(len(name.split(" ")) for name in names)
    base = Chart(inline_rows(pictures, "name", "image", "value", "picture")).encode(
        x=alt.X(
            "name:N",
            sort=names,
            title="condition",
            axis=alt.Axis(
                orient="top",
                labelAngle=0,
                labelPadding=_LINE * lines - 8,
                labelExpr="split(datum.label, ' ')",
                domain=False,
                ticks=False,
            ),
        ),
        y=alt.Y("image:O", title="image (number in the file)"),
        tooltip=[alt.Tooltip("name:N", title="picture"), alt.Tooltip("value:Q", format=".2f", title="Dice")],
    )
    shown = base.mark_image(width=_SIDE, height=_SIDE, smooth=False).encode(url="picture:N")
    frame = base.mark_rect(fill="transparent", stroke=MUTED_COLOUR, strokeWidth=0.5, width=_SIDE, height=_SIDE)
    text = base.mark_text(dy=_SIDE / 2 + 9, fontSize=10, color=INK_COLOUR).encode(
        text=alt.Text("value:Q", format=".2f")
    )
    step = {"step": _SIDE + 12}
    return overlay(shown, frame, text).properties(width=step, height={"step": _SIDE + 32})
