"""How all pictures look: one palette that the colour-blind can read, one calm theme.

Colours of categories: Okabe & Ito (2008), without the yellow that vanishes on white. Magnitudes: schemes whose lightness
rises in one direction, or runs from a pale middle to two ends of different hue that no common colour blindness confuses.
"""

CATEGORY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SEQUENTIAL_SCHEME = "yellowgreenblue"
DIVERGING_SCHEME = "blueorange"
ORDINAL_SCHEME = {"name": "viridis", "extent": [0.92, 0.0]}
"""For things in an order, layers and steps: early is light, late is dark; without the yellow end."""
INK_COLOUR, MUTED_COLOUR, FAINT_COLOUR, MISSING_COLOUR = "#1b1f24", "#5b6570", "#e7eaee", "#dfe3e8"

SEAMLESS_CELLS = {"x2Offset": 0.6, "y2Offset": -0.6}
"""For cells side by side: each reaches a little under the next, or the background shines through the seams."""
_DASH_PATTERNS = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
"""Lines beyond the palette repeat its colours with the next dash."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
CHART_WIDTH = 900
"""Of a picture that takes the full width of a report, in px, axes not counted."""

THEME_CONFIG = {
    "font": _FONT,
    "background": "white",
    "padding": 8,
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED_COLOUR,
        "titleColor": MUTED_COLOUR,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "gridColor": FAINT_COLOUR,
        "domainColor": "#b9c0c8",
        "tickColor": "#b9c0c8",
        "tickSize": 4,
    },
    "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
    "axisX": {"grid": False},
    "legend": {
        "labelColor": INK_COLOUR,
        "titleColor": MUTED_COLOUR,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "symbolStrokeWidth": 2.5,
        "labelLimit": 260,
        "titleLimit": 320,
    },
    "title": {
        "anchor": "start",
        "color": INK_COLOUR,
        "fontSize": 13,
        "fontWeight": 600,
        "subtitleColor": MUTED_COLOUR,
        "subtitleFontSize": 11,
        "offset": 8,
        "subtitlePadding": 4,
    },
}


def colour_map(names: list[str]) -> list[str]:
    """One colour a name, in the order of the names."""
    return [CATEGORY_COLOURS[i % len(CATEGORY_COLOURS)] for i in range(len(names))]


def dash_map(names: list[str]) -> list[list[int]]:
    """One dash a name: solid as long as there are colours, another one for each further round of the palette."""
    return [_DASH_PATTERNS[(i // len(CATEGORY_COLOURS)) % len(_DASH_PATTERNS)] for i in range(len(names))]
