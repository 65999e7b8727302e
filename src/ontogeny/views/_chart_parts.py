"""Parts of charts: inline data, blank charts, panels, cells with labels, legends, theme."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.views._layout import Chart, concat, vconcat
from ontogeny.views._notebook import OFFLINE_KEY, use_offline_renderer
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
"""Key in a chart's `usermeta` for the reason why it is blank."""
_LETTER, _TITLE_LETTER, _MARGIN = 6.2, 7.3, 36
"""Mean width of a letter in a subtitle and in a title, and the room beside a panel that a title may use, in px."""
_LINE_WIDTH = 120
"""Characters in a line of full width."""


def inline_rows(rows: pd.DataFrame, *columns: str) -> alt.InlineData:
    """The named columns (default: all) as data inside the chart, with six digits; NaN becomes null."""
    names = list(columns) or list(rows.columns)
    cells = [[_json_value(value) for value in rows[name].tolist()] for name in names]
    # A tuple, since Altair deep-copies lists whenever a chart becomes part of another.
    return alt.InlineData(values=tuple(dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)))


def _json_value(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else float(f"{number:.6g}")


def blank_chart(title: str, reason: str) -> alt.Chart:
    """A chart without data that states the reason."""
    # Wrapped: the end of a long line would be cut off.
    lines = textwrap.wrap(reason, _LINE_WIDTH)
    chart = Chart(alt.InlineData(values=[{"reason": "\n".join(lines)}]), title=title, width=CHART_WIDTH)
    return (
        chart.properties(height=44 + 16 * len(lines))
        .mark_text(
            color=MUTED_COLOUR, fontSize=13, limit=CHART_WIDTH, lineBreak="\n", baseline="line-top", dy=-8 * len(lines)
        )
        .encode(text="reason:N")
        .properties(usermeta={_EMPTY_REASON_KEY: reason})
    )


def blank_chart_reason(chart: alt.TopLevelMixin) -> str | None:
    """The reason of a blank chart; None for other charts."""
    meta = getattr(chart, "usermeta", None)
    return meta.get(_EMPTY_REASON_KEY) if isinstance(meta, dict) else None


def missing_rows_reason(rows: pd.DataFrame, what: str) -> str:
    """Why rows cannot be drawn: there are none, or their notes."""
    if rows.empty:
        return f"No rows with {what} in this table."
    notes = [note for note in dict.fromkeys(rows["note"]) if note]
    return f"{what} could not be measured: " + ("; ".join(notes[:3]) if notes else "no reason given") + "."


def resolve_scales(chart: Any, **channels: str) -> Any:
    """`chart.resolve_scale(…)` in place: Altair's method copies the whole chart."""
    chart.resolve = alt.Resolve(scale=alt.ScaleResolveMap(**channels))
    return chart


def small_multiples(charts: Sequence[Any], *, columns: int = 3, spacing: int = 24) -> Any:
    """Small multiples with shared scales of colour and dash."""
    if len(charts) == 1:
        return charts[0]
    grid = concat(*charts, columns=columns, spacing=spacing)
    return resolve_scales(grid, color="shared", strokeDash="shared")


def multiples_or_blank(charts: Sequence[Any], title: str, rows: pd.DataFrame, what: str, *, columns: int = 3) -> Any:
    """Small multiples; without charts a blank one with the reason from `rows`, which lack `what`."""
    return small_multiples(charts, columns=columns) if charts else blank_chart(title, missing_rows_reason(rows, what))


def stack_by_metric(charts: Sequence[tuple[str, Any]]) -> Any:
    """Blocks of panels by metric, one below another, each with its own colour scale."""
    blocks = [
        small_multiples([chart for m, chart in charts if m == metric]) for metric in dict.fromkeys(m for m, _ in charts)
    ]
    return blocks[0] if len(blocks) == 1 else resolve_scales(vconcat(*blocks, spacing=30), color="independent")


def interval_band(base: alt.Chart, rows: pd.DataFrame, *, opacity: float, **looks: Any) -> alt.Chart:
    """Intervals over time as a band; a single checkpoint has a bar instead."""
    return (
        base.mark_rule(strokeWidth=1.5, **looks)
        if rows["age"].nunique() < 2
        else base.mark_area(opacity=opacity, **looks)
    )


def known_intervals(chart: Any, rows: pd.DataFrame) -> list[Any]:
    """The chart of intervals, if any row has one (Vega warns of a scale without extent)."""
    return [chart] if rows["low"].notna().any() else []


def facet_header(title: str, *subtitle: str) -> alt.TitleParams:
    """The title of a chart, with lines below it."""
    return alt.TitleParams(title, subtitle=[line for line in subtitle if line])


def panel_title(text: str, *subtitle: str) -> alt.TitleParams:
    """The title of a panel inside a chart; the non-empty parts of the subtitle share a line."""
    title = alt.TitleParams(text, fontSize=12, fontWeight=600, color=INK_COLOUR, offset=6)
    if subtitle:
        title.subtitle = " · ".join(part for part in subtitle if part)
    return title


def wrap_panel_titles(chart: Any) -> None:
    """Break the titles of panels into lines that are no wider than the panels, in place."""
    children = [child for key in ("hconcat", "vconcat", "concat") for child in _list(getattr(chart, key, None))]
    for child in children:
        wrap_panel_titles(child)
    width, title = getattr(chart, "width", None), getattr(chart, "title", None)
    if children or not isinstance(width, int | float) or not isinstance(title, alt.TitleParams):
        return
    for key, letter in (("text", _TITLE_LETTER), ("subtitle", _LETTER)):
        if isinstance(text := title[key], str):
            title[key] = textwrap.wrap(text, max(int((width + _MARGIN) / letter), 16)) or text


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def number_tooltips(*columns: str, digits: str = ".3f") -> list[alt.Tooltip]:
    """Tooltips of numeric columns."""
    return [alt.Tooltip(f"{column}:Q", format=digits) for column in columns]


def labelled_cells(
    base: alt.Chart, color: alt.Color, tooltip: Sequence[Any], dark: str, **labels: Mapping[str, Any]
) -> list[alt.Chart]:
    """Coloured cells with text.

    Args:
        base: Chart with x and y.
        color: Colour of a cell.
        tooltip: Tooltip of a cell.
        dark: Vega test for dark cells, whose text is white.
        labels: Columns of text, with the properties of their marks.
    """
    cells = base.mark_rect(stroke="white", strokeWidth=1).encode(color=color, tooltip=list(tooltip))
    ink = alt.condition(dark, alt.value("white"), alt.value(INK_COLOUR))
    return [cells, *(base.mark_text(**mark).encode(text=f"{c}:N", color=ink) for c, mark in labels.items())]


def colour_by_name(
    names: list[str], *, title: str | None = None, legend: bool = True, colours: Sequence[str] | None = None
) -> alt.Color:
    """Colour by `name`, in the palette of categories or in the given colours."""
    # In a long list the symbol is a line that also shows the dash; symbols are opaque although bands are not.
    symbols = {"symbolOpacity": 1} | (
        {"symbolType": "stroke", "symbolSize": 250} if len(names) > len(CATEGORY_COLOURS) else {}
    )
    shown = alt.Legend(title=title, orient="right", **symbols) if legend else None
    return alt.Color("name:N", scale=alt.Scale(domain=names, range=list(colours or colour_map(names))), legend=shown)


def facet_rows_by_name(field: str, names: Sequence[str], title: str, *, first: bool) -> alt.Y:
    """Common rows of panels side by side; labels at the first panel only."""
    axis = alt.Axis() if first else alt.Axis(labels=False, ticks=False)
    scale = alt.Scale(domain=list(names))
    return alt.Y(f"{field}:N", sort=list(names), scale=scale, title=title if first else None, axis=axis)


def dash_by_name(names: list[str]) -> Any:
    """Dashes by `name`; solid unless the palette repeats."""
    if len(names) <= len(CATEGORY_COLOURS):
        return alt.value([1, 0])
    return alt.StrokeDash("name:N", scale=alt.Scale(domain=names, range=dash_map(names)))


def apply_theme(chart: Any) -> Any:
    """Apply the theme at the top level, in place; charts without theme can be concatenated."""
    chart.config = alt.Config(**THEME_CONFIG)
    meta = chart.usermeta if isinstance(chart.usermeta, dict) else {}
    chart.usermeta = meta | {OFFLINE_KEY: True}
    use_offline_renderer()
    return chart
