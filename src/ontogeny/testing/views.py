"""Contract of a view: empty, one-row and NaN tables, axes with units, colours that are safe for colour-blind readers."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import vl_convert

from ontogeny import views
from ontogeny.records import RECORD_COLUMNS
from ontogeny.testing._contract import Clause, run_clauses

AXIS_UNIT = re.compile(
    r"\((0–1|≤ 1|−1 to 1|0–2|dimensions|resid|attn|mlp|neuron|0 first|nats|spreads|nats per token|times the vector|count|rank"
    r"|units of the stream|units of the joint space|units of the target|number in the file|share of the truth|of cosines"
    r"|spreads of the activations"
    r"|share of W₀|share of the distances|share of the ranks|log₂ of a ratio|times the change|doublings)\)"
    r"|^training step|^(learned|tried) at step|\(training step\)$"
    r"|^layer$|^block$|^model$|^concept$|^checkpoints averaged$|^arm$|^estimate$|^condition$|^kind of token$|^kind of change$"
    r"|^states of → stage$"
    r"|^stage$|^vector of$|^vector of → stage$|^stage → stage$|nHSIC\(",
    re.IGNORECASE,
)
"""The unit of an axis: a range or unit in brackets, or a counted thing."""
_SAFE_SCHEMES = {"yellowgreenblue", "blueorange", "viridis"}
"""ColorBrewer's YlGnBu, a blue–orange diverging scheme, and viridis: published as safe for colour-blind readers."""
_SAFE_COLOURS = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "white", "transparent"}
"""Okabe & Ito without yellow."""


def render_view(chart: Any) -> str:
    """The chart as SVG; a specification that Vega-Lite cannot draw fails here.

    Args:
        chart: An Altair chart, or its specification.
    """
    svg: str = vl_convert.vegalite_to_svg(chart if isinstance(chart, dict) else chart.to_dict(validate=False))
    return svg


_charts: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {}
"""The last chart of each view with its table, since several clauses read it."""


def _drawn(name: str, records: pd.DataFrame) -> dict[str, Any]:
    """The chart of a table, which drawing must leave as it is."""
    if name not in _charts or _charts[name][0] is not records:
        before = records.assign(coords=records["coords"].map(copy.copy))
        chart = views.load_view(name).draw(records).to_dict()
        pd.testing.assert_frame_equal(records, before)
        _charts[name] = (records, chart)
    return _charts[name][1]


def has_title_caption_and_columns(name: str, records: pd.DataFrame) -> None:
    view = views.load_view(name)
    assert view.title
    assert len(view.caption) > 60
    assert view.needs <= set(RECORD_COLUMNS)
    kept = view.select(records)
    assert 0 < len(kept) < len(records)
    pd.testing.assert_frame_equal(view.select(kept), kept)


def gives_a_reason_for_an_empty_table(name: str, records: pd.DataFrame) -> None:
    for empty in (records.head(0), records[records["metric"].eq("fisher")]):
        chart = views.load_view(name).draw(empty)
        assert "No rows" in str(views.empty_reason(chart))
        assert "No rows" in render_view(chart)


def gives_the_note_of_a_table_of_nans(name: str, records: pd.DataFrame) -> None:
    lost = records.assign(value=np.nan, low=np.nan, high=np.nan, n=0, note="the probe did not converge")
    chart = views.load_view(name).draw(lost)
    assert "did not converge" in str(views.empty_reason(chart))
    render_view(chart)


def draws_one_row_of_each_metric(name: str, records: pd.DataFrame) -> None:
    view = views.load_view(name)
    rows = view.select(records)
    for index in rows.groupby("metric").head(1).index:
        view.draw(records.loc[[index]]).to_dict(validate=False)  # the whole chart is validated in other clauses
    shown = rows[rows["value"].notna() & rows["control"].isna()].drop_duplicates("metric", keep="last")
    render_view(view.draw(shown))


def draws_a_table_with_missing_cells(name: str, records: pd.DataFrame) -> None:
    """Some cells, some intervals and all tokens are missing; the rest is drawn."""
    rng = np.random.default_rng(0)
    holes = records.assign(tokens=np.nan)
    holes.loc[rng.random(len(holes)) < 0.3, ["value", "low", "high"]] = np.nan
    holes.loc[rng.random(len(holes)) < 0.3, ["low", "high"]] = np.nan
    chart = views.load_view(name).draw(holes)
    assert views.empty_reason(chart) is None
    assert "NaN" not in render_view(chart)


def has_axes_with_titles_and_units(name: str, records: pd.DataFrame) -> None:
    chart = _drawn(name, records)
    svg = render_view(chart)
    assert svg.count("<path") + svg.count("<rect") > 20
    titles = list(axis_titles(chart))
    assert len(titles) >= 2
    assert [title for title in titles if not (isinstance(title, str) and AXIS_UNIT.search(title))] == []


def uses_safe_colours_only(name: str, records: pd.DataFrame) -> None:
    assert set(unsafe_colours(_drawn(name, records))) == set()


def has_its_caption_as_alt_text(name: str, records: pd.DataFrame) -> None:
    view = views.load_view(name)
    assert _drawn(name, records)["description"] == f"{view.title}. {view.caption}"


def is_limited_in_size(name: str, records: pd.DataFrame) -> None:
    assert len(json.dumps(_drawn(name, records))) < 1_000_000


def axis_titles(chart: dict) -> Iterator[Any]:
    """Titles of all labelled axes, as Vega draws them (Vega-Lite merges the titles of layers)."""
    for node in chart_nodes(vl_convert.vegalite_to_vega(chart)):
        for axis in node.get("axes", []) if isinstance(node.get("axes"), list) else []:
            if axis.get("labels", True):
                yield axis.get("title")


def unsafe_colours(chart: dict) -> Iterator[str]:
    spec = {key: value for key, value in chart.items() if key not in ("datasets", "config")}
    for node in chart_nodes(spec):
        for key, value in node.items():
            if key == "scheme":
                name = value["name"] if isinstance(value, dict) else value
                if name not in _SAFE_SCHEMES:
                    yield name
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", text) and not _is_safe(text):
                    yield text


def _is_safe(colour: str) -> bool:
    """Whether a colour is in the list or nearly grey."""
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return colour.lower() in _SAFE_COLOURS or max(channels) - min(channels) < 24


def chart_nodes(value: Any) -> Iterator[dict]:
    """All dicts inside a specification, without data."""
    if isinstance(value, dict):
        yield value
        for key, inner in value.items():
            if key not in ("values", "datasets"):
                yield from chart_nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from chart_nodes(inner)


VIEW_CLAUSES: tuple[Clause, ...] = (
    has_title_caption_and_columns,
    gives_a_reason_for_an_empty_table,
    gives_the_note_of_a_table_of_nans,
    draws_one_row_of_each_metric,
    draws_a_table_with_missing_cells,
    has_axes_with_titles_and_units,
    uses_safe_colours_only,
    has_its_caption_as_alt_text,
    is_limited_in_size,
)


def check_view(name: str, records: pd.DataFrame) -> None:
    """Check a view against its contract.

    Args:
        name: Name of a plug-in, of this package or of an installed one that has the entry point `ontogeny.views`.
        records: A table with rows that the view draws and rows that it does not, such as `Run.records` of a small trace.

    Raises:
        AssertionError: a clause does not hold; a note says which.
        BadInput: there is no such view.
    """
    run_clauses("view", name, VIEW_CLAUSES, name, records)
