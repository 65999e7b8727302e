"""Pictures of a report: every view as a chart, in tabs for a run of many concepts, as compact JSON that the page unpacks."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ontogeny.findings.selection import RecordSource
from ontogeny.views import View, empty_reason, load_views

MOST_CONCEPTS = 8
"""More concepts are drawn in tabs."""
_IN_A_TAB = 6


@dataclass(frozen=True)
class PictureTab:
    """One chart of a picture."""

    label: str
    """Its concepts; "" if it is the only one."""
    concepts: tuple[str, ...]
    spec: dict[str, Any]


@dataclass(frozen=True)
class ReportPicture:
    """A view in a report."""

    name: str
    title: str
    caption: str
    tabs: tuple[PictureTab, ...]
    table: dict[str, Any] | None = None
    """Rows that a reader pages through: `columns`, and `rows` packed as a data set."""
    sentences: tuple[str, ...] = ()
    """Sentences on its rows, for a comparison of stages."""

    @property
    def packed(self) -> list[dict[str, Any]]:
        """The tabs as the page reads them."""
        return [{"concepts": tab.concepts, "spec": pack_chart(tab.spec)} for tab in self.tabs]


def report_pictures(source: RecordSource) -> tuple[list[ReportPicture], list[tuple[str, str]]]:
    """The views that have something to draw, and the titles of the others with their reasons."""
    pictures: list[ReportPicture] = []
    absent: list[tuple[str, str]] = []
    for view in load_views():
        picture, reason = draw_picture(view, source)
        if picture is not None:
            pictures.append(picture)
        else:
            absent.append((view.title, reason))
    return pictures, absent


def draw_picture(view: View, source: RecordSource, *, table: bool = True) -> tuple[ReportPicture | None, str]:
    """One view of a run; without anything to draw, None and the reason.

    Args:
        table: Whether the picture has the rows that a reader pages through.
    """
    rows = source.rows(view.where)
    tabs, reason = _draw_tabs(view, rows)
    if not tabs:
        return None, source.blank_reason(view.where, reason)
    return ReportPicture(view.name, view.title, view.caption, tabs, _table(view, rows) if table else None), ""


def _draw_tabs(view: View, rows: pd.DataFrame) -> tuple[tuple[PictureTab, ...], str]:
    """The charts of a view; without any, the reason."""
    drawn = view.select(rows)
    names = [str(name) for name in drawn.loc[drawn["metric"].ne("best_site"), "concept"].dropna().unique()]
    one_chart = view.together or len(names) <= MOST_CONCEPTS
    groups = [names] if one_chart else [names[i : i + _IN_A_TAB] for i in range(0, len(names), _IN_A_TAB)]
    tabs, reasons = [], []
    if not one_chart and view.overview is not None:
        tabs.append(PictureTab("all concepts", (), view.draw_overview(rows).to_dict(validate=False)))
    for own in groups:
        part = rows if one_chart else rows[rows["concept"].isin(own) | rows["concept"].isna()]
        chart = view.draw(part)
        if reason := empty_reason(chart):
            reasons.append(reason)
            continue
        label = "" if one_chart else own[0] if len(own) == 1 else f"{own[0]} – {own[-1]}"
        tabs.append(PictureTab(label, tuple(own), chart.to_dict(validate=False)))
    return (tuple(tabs), "") if len(reasons) < len(groups) else ((), reasons[0])


def _table(view: View, rows: pd.DataFrame) -> dict[str, Any] | None:
    if view.table is None:
        return None
    table = view.table(rows)
    return {"columns": list(table.columns), "rows": pack_rows(table.to_dict("records"))} if len(table) else None


def pack_chart(spec: dict[str, Any]) -> dict[str, Any]:
    """A chart with its data sets packed."""
    datasets = {name: pack_rows(rows) for name, rows in spec.get("datasets", {}).items()}
    return {**spec, "datasets": datasets} if datasets else spec


def pack_rows(rows: Any) -> Any:
    """Rows of equal keys as columns; a column of one value is that value, one of few values a list of them with places.

    Returns:
        `{"n": number of rows, "columns": {name: values, {"is": value} or {"of": values, "at": places}}}`, or the rows as they are.
    """
    if not isinstance(rows, list | tuple) or not rows or any(row.keys() != rows[0].keys() for row in rows):
        return rows
    return {"n": len(rows), "columns": {key: _pack([_plain(row[key]) for row in rows]) for key in rows[0]}}


def _pack(values: list[Any]) -> Any:
    if any(isinstance(value, dict | list) for value in values):
        return values
    places = {(type(value), value): i for i, value in reversed(list(enumerate(values)))}
    if len(places) == 1:
        return {"is": values[0]}
    if 4 * len(places) > len(values):
        return values
    of = [value for _, value in sorted(places, key=lambda key: places[key])]
    at = {(type(value), value): i for i, value in enumerate(of)}
    return {"of": of, "at": [at[type(value), value] for value in values]}


def _plain(value: Any) -> Any:
    """NaN as null, which JSON can hold; floats with six digits."""
    if not isinstance(value, float):
        return value
    if value != value or value in (float("inf"), float("-inf")):
        return None
    return int(value) if value.is_integer() else float(f"{value:.6g}")
