"""Pieces that pictures are made of: data inside the chart, the chart that says why it is empty, panels, the final dress."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.views._theme import (
    CATEGORY_COLOURS,
    CHART_WIDTH,
    INK_COLOUR,
    MUTED_COLOUR,
    THEME_CONFIG,
    colour_map,
    dash_map,
)

_EMPTY_REASON_KEY = "empty"
"""Key in a chart's `usermeta` that holds the reason why there is nothing to see."""
MAX_LINE_LETTERS = 120
"""What a line of the full width holds."""


def inline_rows(rows: pd.DataFrame, *columns: str) -> alt.InlineData:
    """The named columns as rows inside the chart: six digits are enough for a picture, NaN becomes null."""
    chosen = rows[list(columns)] if columns else rows
    # A tuple: Altair copies lists, and what they hold, each time that a chart becomes part of another.
    return alt.InlineData(
        values=tuple({k: _json_value(v) for k, v in row.items()} for row in chosen.to_dict("records"))
    )


def _json_value(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else float(f"{number:.6g}")


def blank_chart(title: str, reason: str) -> alt.Chart:
    """A chart that has nothing to show and says why."""
    # Broken into lines: the end of a long reason would be cut off.
    lines = textwrap.wrap(reason, MAX_LINE_LETTERS)
    said = alt.Chart(alt.InlineData(values=[{"reason": "\n".join(lines)}]), title=title, width=CHART_WIDTH)
    said = said.properties(height=44 + 16 * len(lines))
    return (
        said.mark_text(
            color=MUTED_COLOUR, fontSize=13, limit=CHART_WIDTH, lineBreak="\n", baseline="line-top", dy=-8 * len(lines)
        )
        .encode(text="reason:N")
        .properties(usermeta={_EMPTY_REASON_KEY: reason})
    )


def blank_chart_reason(chart: alt.TopLevelMixin) -> str | None:
    """The reason of a blank chart; None for one that shows something."""
    meta = getattr(chart, "usermeta", None)
    return meta.get(_EMPTY_REASON_KEY) if isinstance(meta, dict) else None


def missing_rows_reason(rows: pd.DataFrame, what: str) -> str:
    """Why rows cannot be drawn: there are none, or what their notes say."""
    if rows.empty:
        return f"No rows with {what} in this table."
    notes = [note for note in dict.fromkeys(rows["note"]) if note]
    return f"{what} could not be measured: " + ("; ".join(notes[:3]) if notes else "no reason given") + "."


def small_multiples(charts: Sequence[Any], *, columns: int = 3, spacing: int = 24) -> Any:
    """Small multiples; scales of colour and dash are shared."""
    if len(charts) == 1:
        return charts[0]
    return alt.concat(*charts, columns=columns, spacing=spacing).resolve_scale(color="shared", strokeDash="shared")


def stack_by_metric(charts: Sequence[tuple[str, Any]]) -> Any:
    """Panels under one another by metric, each block with its own scale of colour: what is pale for one is not for the other."""
    blocks = [
        small_multiples([chart for m, chart in charts if m == metric]) for metric in dict.fromkeys(m for m, _ in charts)
    ]
    return blocks[0] if len(blocks) == 1 else alt.vconcat(*blocks, spacing=30).resolve_scale(color="independent")


def interval_band(base: alt.Chart, rows: pd.DataFrame, *, opacity: float, **looks: Any) -> alt.Chart:
    """Intervals over time as a band; a band needs two checkpoints, and the interval of one alone is a bar."""
    return (
        base.mark_rule(strokeWidth=1.5, **looks)
        if rows["age"].nunique() < 2
        else base.mark_area(opacity=opacity, **looks)
    )


def known_intervals(chart: Any, rows: pd.DataFrame) -> list[Any]:
    """The chart of intervals, if any row has one: Vega warns of a scale without extent."""
    return [chart] if rows["low"].notna().any() else []


def facet_header(title: str, *subtitle: str) -> alt.TitleParams:
    return alt.TitleParams(title, subtitle=[line for line in subtitle if line])


def panel_title(text: str) -> alt.TitleParams:
    """The title of a panel inside a picture."""
    return alt.TitleParams(text, fontSize=12, fontWeight=600, color=INK_COLOUR, offset=6)


def colour_by_name(names: list[str], *, title: str | None = None, legend: bool = True) -> alt.Color:
    """Colour by `name`, in the palette of categories."""
    # Of a long list a line shows the dash, too; and a symbol is never as pale as the band that is drawn first.
    looks = {"symbolOpacity": 1} | (
        {"symbolType": "stroke", "symbolSize": 250} if len(names) > len(CATEGORY_COLOURS) else {}
    )
    shown = alt.Legend(title=title, orient="right", **looks) if legend else None
    return alt.Color("name:N", scale=alt.Scale(domain=names, range=colour_map(names)), legend=shown)


def facet_rows_by_name(field: str, names: Sequence[str], title: str, *, first: bool) -> alt.Y:
    """The rows that panels side by side have in common; named beside the first alone."""
    axis = alt.Axis() if first else alt.Axis(labels=False, ticks=False)
    scale = alt.Scale(domain=list(names))
    return alt.Y(f"{field}:N", sort=list(names), scale=scale, title=title if first else None, axis=axis)


def dash_by_name(names: list[str]) -> Any:
    """Dashes by `name`; solid while the palette lasts."""
    if len(names) <= len(CATEGORY_COLOURS):
        return alt.value([1, 0])
    return alt.StrokeDash("name:N", scale=alt.Scale(domain=names, range=dash_map(names)))


def apply_theme(chart: Any) -> Any:
    """The theme; once, at the top level, so that undressed pictures can be put into others."""
    return chart.configure(**THEME_CONFIG)
