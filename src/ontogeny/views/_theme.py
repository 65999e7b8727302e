"""Theme of all views: a palette that is safe for colour-blind readers, fonts and axes.

Categories: Okabe & Ito (2008), without the yellow, which is invisible on white. Magnitudes: schemes of increasing lightness, or
diverging schemes from a pale middle to two hues that no common colour blindness confuses.
"""

CATEGORY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SEQUENTIAL_SCHEME = "yellowgreenblue"
DIVERGING_SCHEME = "blueorange"
ORDINAL_SCHEME = {"name": "viridis", "extent": [0.92, 0.0]}
"""For layers and steps: early is light, late is dark; without the yellow end."""
INK_COLOUR, MUTED_COLOUR, FAINT_COLOUR, MISSING_COLOUR = "#1b1f24", "#5b6570", "#e7eaee", "#dfe3e8"

SEAMLESS_CELLS = {"x2Offset": 0.6, "y2Offset": -0.6}
"""Adjacent cells overlap a little, so that no background is visible between them."""
_DASH_PATTERNS = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
"""Each further round of the palette has the next dash."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
CHART_WIDTH = 900
"""Width of a full-width chart in px, without axes."""

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
    """One colour per name, in the order of the names."""
    return [CATEGORY_COLOURS[i % len(CATEGORY_COLOURS)] for i in range(len(names))]


def dash_map(names: list[str]) -> list[list[int]]:
    """One dash per name: solid in the first round of the palette, another one in each further round."""
    return [_DASH_PATTERNS[(i // len(CATEGORY_COLOURS)) % len(_DASH_PATTERNS)] for i in range(len(names))]
