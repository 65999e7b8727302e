"""Views: charts of the table of records, one file each.

A view is a module with a `title`, the columns it `needs`, `select(records)` that keeps the rows it uses, and `draw(records)`
that returns an Altair chart, also for an empty table. `draw` does not change the table. It gets at least the rows that meet the
condition `where` (ontogeny.findings.selection; the whole table by default), and a row for each checkpoint. The docstring is the caption.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ontogeny import plugins
from ontogeny.errors import BadInput
from ontogeny.findings.selection import metric_condition
from ontogeny.views._chart_parts import apply_theme
from ontogeny.views._export import save_chart
from ontogeny.views._page import EMBED_SCRIPT, content_security_policy, embedded_json, vega_bundle
from ontogeny.views._theme import DIVERGING_SCHEME, INK_COLOUR, MISSING_COLOUR, SEQUENTIAL_SCHEME

__all__ = [
    "DIVERGING_SCHEME",
    "EMBED_SCRIPT",
    "INK_COLOUR",
    "MISSING_COLOUR",
    "SEQUENTIAL_SCHEME",
    "View",
    "apply_theme",
    "content_security_policy",
    "embedded_json",
    "empty_reason",
    "load_view",
    "load_views",
    "rows_with_metrics",
    "save_chart",
    "study_chart",
    "vega_bundle",
]


@dataclass(frozen=True)
class View:
    """A view plug-in."""

    name: str
    title: str
    needs: frozenset[str]
    """Columns that the table must have."""
    select: Callable[[pd.DataFrame], pd.DataFrame]
    plain: Callable[[pd.DataFrame], Any]
    """The module's `draw`: a chart without theme, which other charts can contain."""
    caption: str
    """Content of the chart, and how to read it."""
    where: str = "true"
    """Condition for the rows that it draws, for `RecordSource`."""
    place: int = 50
    """Position in a report, in ascending order."""
    together: bool = False
    """Whether it compares concepts: a report of many concepts draws it once, and other views in tabs."""
    overview: Callable[[pd.DataFrame], Any] | None = None
    """The module's `draw_overview`, if any: a chart of all concepts, before the tabs."""
    table: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    """The module's `tabulate`, if any: rows that a report shows by page."""

    def draw(self, records: pd.DataFrame) -> Any:
        """The themed chart with its caption as alt text; without usable rows, a chart that states the reason.

        Raises:
            BadInput: the table lacks a needed column.
        """
        missing = sorted(self.needs - set(records.columns))
        if missing:
            raise BadInput(
                f"view {self.name!r} needs the columns {', '.join(missing)}: pass rows of a run's table of records."
            )
        with _unchecked_parts():
            return self._themed(self.plain(records), records)

    def draw_overview(self, records: pd.DataFrame) -> Any:
        """The themed chart of all concepts; only for a view with an `overview`."""
        assert self.overview is not None, "the view has an overview"
        with _unchecked_parts():
            return self._themed(self.overview(records), records)

    def _themed(self, plain: Any, records: pd.DataFrame) -> Any:
        from ontogeny.views._chart_parts import wrap_panel_titles

        chart = apply_theme(plain)
        wrap_panel_titles(chart)
        meta = chart.usermeta if isinstance(chart.usermeta, dict) else {}
        chart.description = f"{self.title}. {self.caption}"
        chart.usermeta = meta | {"title": self.title, "run": _run_names(records), "caption": self.caption}
        return chart


def _unchecked_parts() -> AbstractContextManager[None]:
    """Altair checks no part against its schema when it is made: the contract of views checks whole charts."""
    from altair.utils.schemapi import debug_mode

    parts: AbstractContextManager[None] = debug_mode(False)
    return parts


def _run_names(records: pd.DataFrame) -> str:
    """The lineages of the rows, or how many there are."""
    names = list(records["lineage"].dropna().unique()) if "lineage" in records else []
    return ", ".join(map(str, names)) if len(names) <= 4 else f"{len(names)} runs"


@dataclass(frozen=True)
class MetricSelection:
    """A view's `select`, which keeps the rows of some metrics, with its condition."""

    metrics: tuple[str, ...]

    @property
    def where(self) -> str:
        return metric_condition(*self.metrics)

    def __call__(self, records: pd.DataFrame) -> pd.DataFrame:
        return records[records["metric"].isin(self.metrics)]


def rows_with_metrics(*metrics: str) -> MetricSelection:
    return MetricSelection(metrics)


def load_view(name: str) -> View:
    """Load a view by name.

    Raises:
        BadInput: no view has this name.
    """
    module = plugins.load_plugin("views", name)
    caption = " ".join((module.__doc__ or "").split())
    where = getattr(module, "where", getattr(module.select, "where", "true"))
    place = getattr(module, "place", 50)
    return View(
        name,
        module.title,
        frozenset(module.needs),
        module.select,
        module.draw,
        caption,
        where,
        place,
        together=getattr(module, "together", False),
        overview=getattr(module, "draw_overview", None),
        table=getattr(module, "tabulate", None),
    )


def load_views() -> list[View]:
    """Load all views, in the order of a report."""
    return sorted((load_view(name) for name in plugins.list_plugins("views")), key=lambda v: (v.place, v.name))


def study_chart(records: pd.DataFrame, picture: Any) -> Any:
    """The themed chart of a study's picture: a metric over training steps per condition, one metric over another, or a view.

    Args:
        records: Rows of the study.
        picture: A `StudyPicture`.
    """
    from ontogeny.views._study_curves import draw_study_curves
    from ontogeny.views._study_points import draw_study_points

    if picture.view:
        return load_view(picture.view).draw(records)
    with _unchecked_parts():
        return draw_study_points(records, picture) if picture.points else draw_study_curves(records, picture)


def empty_reason(chart: Any) -> str | None:
    """Why a chart is blank; None if it is not."""
    from ontogeny.views._chart_parts import blank_chart_reason

    return blank_chart_reason(chart)
