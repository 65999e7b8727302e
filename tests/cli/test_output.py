"""Numbers in printed lines: an absent one is a dash, and an absent interval has no brackets."""

import math

import pytest

from ontogeny.cli._output import interval_text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [(0.926, 0.9, 0.96, "0.93 [0.90, 0.96]"), (0.5, math.nan, math.nan, "0.50"), (math.nan, math.nan, math.nan, "–")],
)
def test_interval_is_printed_only_where_there_is_one(value: float, low: float, high: float, text: str) -> None:
    assert interval_text({"value": value, "low": low, "high": high}) == text
