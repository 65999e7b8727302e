"""Edits of facts: each number of an edited model beside the unedited one and beside random changes of the same norm.

One row of panels for each fact. Filled dots: the edited model; hollow dots: the model before. Bars: the range of random rank-one changes,
and of random values at the key of the edit, each with its mean. From the left: probabilities and shares of prompts, divergences, shattering
R (arXiv:2410.17194), which depends on scale, and its two companions, which do not. A dot inside the bars shows no effect of this fact.
"""

from typing import Any

import altair as alt
import pandas as pd

from ontogeny.findings.sentences import format_score
from ontogeny.findings.table import coord_column, tidy_records
from ontogeny.records import checkpoint_label
from ontogeny.views import rows_with_metrics
from ontogeny.views._chart_parts import (
    blank_chart,
    inline_rows,
    missing_rows_reason,
    number_tooltips,
    panel_title,
    resolve_scales,
)
from ontogeny.views._layout import Chart, hconcat, overlay, vconcat
from ontogeny.views._theme import CATEGORY_COLOURS, CHART_WIDTH, INK_COLOUR

title = "Edits of facts"
place = 13
needs = frozenset({"stage", "step", "method", "metric", "control", "value", "low", "high", "coords"})

_PANELS = {
    "probability or share (0–1)": {
        ("edit_probability", "fact"): "new object",
        ("edit_probability", "paraphrase"): "after paraphrases",
        ("edit_success", "fact"): "above the old object",
        ("edit_success", "paraphrase"): "above, paraphrases",
        ("edit_kept", "neighbour"): "neighbours that stay",
    },
    "change of predictions (nats)": {
        ("edit_kl", "neighbour"): "KL of neighbours",
        ("edit_kl", "text"): "KL a token of text",
        ("edit_loss_change", "text"): "loss on texts",
    },
    "shattering (share of the distances)": {("edit_distortion", "thing"): "R"},
    "shattering without scale (0–2)": {
        ("edit_rearrangement", "thing"): "1 − correlation",
        ("edit_procrustes", "thing"): "Procrustes",
    },
}
_SIDES = {
    "": "edited",
    "unedited": "before the edit",
    "random_rank_one": "random rank-one changes",
    "random_value": "random values at its key",
}
_COLOURS = {
    "": CATEGORY_COLOURS[0],
    "unedited": INK_COLOUR,
    "random_rank_one": CATEGORY_COLOURS[4],
    "random_value": CATEGORY_COLOURS[2],
}
_WHEN = {"after_this": "after this edit", "after_all": "after all edits"}
_KEY = ["lineage", "stage", "step", "method", "number", "evaluated"]
MOST = 8
"""Facts and moments that are drawn."""
METRICS = tuple(dict.fromkeys(metric for panel in _PANELS.values() for metric, _ in panel))
select = rows_with_metrics(*METRICS)


def draw(records: pd.DataFrame) -> Any:
    table = tidy_records(select(records))
    names = {"number": "fact", "evaluated": "evaluated", "kind": "prompts", "prompt": "prompt", "object": "object"}
    rows = table.assign(**{column: coord_column(table, key) for column, key in names.items()})
    rows = rows[rows["value"].notna() & rows["control"].isin(_SIDES)]
    if rows.empty:
        return blank_chart(title, missing_rows_reason(table, "an edit of a fact (ontogeny edit makes them)"))
    edits = [own for _, own in rows.groupby(_KEY, sort=False, dropna=False)]
    more = f"{MOST} of {len(edits)} are drawn" if len(edits) > MOST else ""
    blocks = [_block(own, more if not i else "") for i, own in enumerate(edits[:MOST])]
    return blocks[0] if len(blocks) == 1 else vconcat(*blocks, spacing=26)


def _block(rows: pd.DataFrame, more: str) -> Any:
    """The panels of one fact at one moment."""
    panels = [panel for axis, labels in _PANELS.items() if (panel := _panel(rows, axis, labels)) is not None]
    first = rows.iloc[0]
    own = rows[rows["metric"].eq("edit_probability") & rows["kind"].eq("fact")].drop_duplicates("control")
    chances = own.set_index("control")["value"]
    parts = [f"{format_score(chances[side])} {_SIDES[side]}" for side in ("", "unedited") if side in chances.index]
    heading = f"{first['prompt']} → {first['object']}" + (f": {', '.join(parts)}" if parts else "")
    step = None if first["step"] != first["step"] else int(first["step"])
    at = checkpoint_label(first["stage"], step) if first["stage"] or step is not None else ""
    when = _WHEN.get(first["evaluated"], first["evaluated"])
    row = hconcat(*panels, spacing=22, title=panel_title(heading, first["method"], at, when, more))
    return resolve_scales(row, color="independent")  # one panel has the legend


def _panel(rows: pd.DataFrame, axis: str, labels: dict[tuple[str, str], str]) -> Any:
    named = [labels.get(key, "") for key in zip(rows["metric"], rows["kind"], strict=True)]
    own = rows.assign(label=named, side=rows["control"].map(_SIDES))
    own = own[own["label"].ne("")]
    if own.empty:
        return None
    shown = [label for label in labels.values() if label in set(own["label"])]
    sides = list(_SIDES.values())
    share = axis.endswith("(0–1)")
    scale = alt.Scale(domain=[0, 1]) if share else alt.Scale(zero=True)
    x = alt.X("value:Q", title=axis, scale=scale, axis=alt.Axis(tickCount=4))
    y = alt.Y(
        "label:N",
        title="estimate",
        sort=shown,
        scale=alt.Scale(domain=shown, paddingInner=0.35),
        axis=alt.Axis(grid=False),
    )
    offset = alt.YOffset("side:N", sort=sides, scale=alt.Scale(domain=sides))
    legend = alt.Legend(title=None, orient="bottom", columns=4, symbolType="circle", symbolOpacity=1) if share else None
    colour = alt.Color("side:N", scale=alt.Scale(domain=sides, range=list(_COLOURS.values())), legend=legend)
    tooltip = ["label:N", "side:N", *number_tooltips("value", "low", "high")]
    columns = ("label", "side", "value", "low", "high")
    filled = own["control"].ne("unedited")
    layers = []
    ranges = own[own["low"].notna() & own["high"].notna()]
    if len(ranges):
        bars = Chart(inline_rows(ranges, *columns)).mark_bar(size=4, opacity=0.35)
        layers.append(
            bars.encode(x=alt.X("low:Q", title=axis, scale=scale), x2="high:Q", y=y, yOffset=offset, color=colour)
        )
    for chosen, solid in ((own[filled], True), (own[~filled], False)):
        if len(chosen):
            dots = Chart(inline_rows(chosen, *columns)).mark_point(filled=solid, size=34, opacity=1, strokeWidth=1.4)
            layers.append(dots.encode(x=x, y=y, yOffset=offset, color=colour, tooltip=tooltip))
    widths = {True: CHART_WIDTH / 4, False: CHART_WIDTH / 4 - 105}
    return overlay(*layers).properties(width=widths[share], height=16 + 34 * len(shown))
