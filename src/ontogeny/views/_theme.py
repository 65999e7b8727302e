"""How all pictures look: one palette that the colour-blind can read, one calm theme.

Colours of categories: Okabe & Ito (2008), without the yellow that vanishes on white. Magnitudes: schemes whose lightness
rises in one direction, or runs from a pale middle to two ends of different hue that no common colour blindness confuses.
"""

CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MAGNITUDE = "yellowgreenblue"
SIGNED = "blueorange"
ORDER = {"name": "viridis", "extent": [0.92, 0.0]}
"""For things in an order, layers and steps: early is light, late is dark; without the yellow end."""
INK, MUTED, FAINT, ABSENT = "#1b1f24", "#5b6570", "#e7eaee", "#dfe3e8"

SEAMLESS = {"x2Offset": 0.6, "y2Offset": -0.6}
"""For cells side by side: each reaches a little under the next, or the background shines through the seams."""
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
"""Lines beyond the palette repeat its colours with the next dash."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
WIDTH = 900
"""Of a picture that takes the full width of a report, in px, axes not counted."""

CONFIG = {
    "font": FONT,
    "background": "white",
    "padding": 8,
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "gridColor": FAINT,
        "domainColor": "#b9c0c8",
        "tickColor": "#b9c0c8",
        "tickSize": 4,
    },
    "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
    "axisX": {"grid": False},
    "legend": {
        "labelColor": INK,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "symbolStrokeWidth": 2.5,
        "labelLimit": 260,
        "titleLimit": 320,
    },
    "title": {
        "anchor": "start",
        "color": INK,
        "fontSize": 13,
        "fontWeight": 600,
        "subtitleColor": MUTED,
        "subtitleFontSize": 11,
        "offset": 8,
        "subtitlePadding": 4,
    },
}


def colours(names: list[str]) -> list[str]:
    """One colour a name, in the order of the names."""
    return [CATEGORIES[i % len(CATEGORIES)] for i in range(len(names))]


def dashes(names: list[str]) -> list[list[int]]:
    """One dash a name: solid as long as there are colours, another one for each further round of the palette."""
    return [DASHES[(i // len(CATEGORIES)) % len(DASHES)] for i in range(len(names))]
