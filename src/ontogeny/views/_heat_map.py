"""Heat map of scores at places of a model (up) and over time (right): layers over checkpoints, or blocks over denoising steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from ontogeny.views._chart_parts import inline_rows
from ontogeny.views._layout import Chart
from ontogeny.views._theme import MISSING_COLOUR, SEAMLESS_CELLS


def score_cells(
    cells: pd.DataFrame,
    columns: Sequence[str],
    span: Mapping[str, Any],
    colour: alt.Color,
    tooltip: Sequence[alt.Tooltip],
) -> list[Any]:
    """Layers of a heat map: grey cells, and coloured ones above them.

    Args:
        cells: One row a cell. `shown` is its value, missing where it is not coloured; `pale` is whether it is grey.
        columns: Columns that the chart stores.
        span: Encodings of the four edges: x, x2, y, y2.
    """
    pale = Chart(inline_rows(cells[cells["pale"]], *columns)).mark_rect(color=MISSING_COLOUR, **SEAMLESS_CELLS)
    bright = Chart(inline_rows(cells[cells["shown"].notna()], *columns)).mark_rect(**SEAMLESS_CELLS)
    return [
        pale.encode(**span, tooltip=list(tooltip)),
        bright.encode(**span, color=colour, tooltip=list(tooltip)),
    ]
