"""Legends of lines, bands and frames that no scale of a chart explains."""

from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import pandas as pd

from ontogeny.views._chart_parts import inline_rows, resolve_scales
from ontogeny.views._layout import Chart, concat, overlay, vconcat
from ontogeny.views._theme import INK_COLOUR

_SYMBOL_WIDTH, _LETTER_WIDTH, _HEIGHT = 24, 6.4, 14


@dataclass(frozen=True)
class LegendEntry:
    """A kind of mark and its meaning."""

    label: str
    mark: Literal["line", "upright", "band", "cell", "frame", "diamond", "dot"]
    colour: str = INK_COLOUR
    dash: tuple[int, ...] = (1, 0)
    opacity: float = 1.0


def with_legend(chart: Any, *entries: LegendEntry) -> Any:
    """The chart with a legend of these marks below it."""
    both = vconcat(chart, legend_of(*entries), spacing=10)
    return resolve_scales(both, color="independent", strokeDash="independent", shape="independent")


def legend_of(*entries: LegendEntry) -> Any:
    """A row of symbols with their meanings; it wraps in a narrow picture."""
    return concat(*map(_entry, entries), columns=len(entries), align="none", spacing=6)


def _entry(entry: LegendEntry) -> alt.LayerChart:
    width = _SYMBOL_WIDTH + 8 + _LETTER_WIDTH * len(entry.label)
    text = Chart(inline_rows(pd.DataFrame({"label": [entry.label]})))
    text = text.mark_text(align="left", baseline="middle", fontSize=11, color=INK_COLOUR)
    text = text.encode(x=alt.value(_SYMBOL_WIDTH + 6), y=alt.value(_HEIGHT / 2), text="label:N")
    return overlay(_symbol(entry), text).properties(width=width, height=_HEIGHT)


def _symbol(entry: LegendEntry) -> alt.Chart:
    middle, end = _HEIGHT / 2, _SYMBOL_WIDTH
    bare = Chart(alt.InlineData(values=[{}]))
    looks: dict[str, Any] = {"opacity": entry.opacity}
    match entry.mark:
        case "line":
            rule = bare.mark_rule(color=entry.colour, strokeDash=list(entry.dash), strokeWidth=2, **looks)
            return rule.encode(x=alt.value(0), x2=alt.value(end), y=alt.value(middle))
        case "upright":
            rule = bare.mark_rule(color=entry.colour, strokeDash=list(entry.dash), strokeWidth=1.6, **looks)
            return rule.encode(x=alt.value(end / 2), y=alt.value(0), y2=alt.value(_HEIGHT))
        case "diamond" | "dot":
            shape = "diamond" if entry.mark == "diamond" else "circle"
            point = bare.mark_point(filled=True, shape=shape, size=70, color=entry.colour, **looks)
            return point.encode(x=alt.value(end / 2), y=alt.value(middle))
        case "frame":
            looks |= {"fill": "transparent", "stroke": entry.colour, "strokeWidth": 1.4}
        case _:
            looks["color"] = entry.colour
    left = end / 2 - 6 if entry.mark in ("cell", "frame") else 0
    box = bare.mark_rect(**looks)
    return box.encode(x=alt.value(left), x2=alt.value(end), y=alt.value(1), y2=alt.value(_HEIGHT - 1))
