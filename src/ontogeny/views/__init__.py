"""Views: charts of the table of records, one file each.

A view is a module with a `title`, the columns it `needs`, `select(records)` that keeps the rows it uses, and `draw(records)`
that returns an Altair chart, also for an empty table. `draw` does not change the table. It gets at least the rows that meet the
condition `where` (ontogeny.findings.selection; the whole table by default), and a row for each checkpoint. The docstring is the caption.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ontogeny import plugins
from ontogeny.errors import BadInput, escape_control
from ontogeny.findings.selection import metric_condition
from ontogeny.storage.files import atomic_path
from ontogeny.views._page import EMBED_SCRIPT, chart_page, content_security_policy, embedded_json, vega_bundle

__all__ = [
    "EMBED_SCRIPT",
    "View",
    "content_security_policy",
    "embedded_json",
    "empty_reason",
    "load_view",
    "load_views",
    "rows_with_metrics",
    "save_chart",
    "vega_bundle",
]

__all__ = ["View", "empty_reason", "load_view", "load_views", "save_chart"]


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
    """What the chart shows and how to read it."""
    where: str = "true"
    """Condition for the rows that it draws, for `RecordSource`."""
    place: int = 50
    """Position in a report, in ascending order."""

    def draw(self, records: pd.DataFrame) -> Any:
        """The themed chart with its caption as alt text; without usable rows, a chart that states the reason.

        Raises:
            BadInput: the table lacks a needed column.
        """
        from ontogeny.views._chart_parts import apply_theme

        missing = sorted(self.needs - set(records.columns))
        if missing:
            raise BadInput(
                f"view {self.name!r} needs the columns {', '.join(missing)}: pass rows of a run's table of records."
            )
        return apply_theme(self.plain(records)).properties(description=f"{self.title}. {self.caption}")


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
    return View(name, module.title, frozenset(module.needs), module.select, module.draw, caption, where, place)


def load_views() -> list[View]:
    """Load all views, in the order of a report."""
    return sorted((load_view(name) for name in plugins.list_plugins("views")), key=lambda v: (v.place, v.name))


def empty_reason(chart: Any) -> str | None:
    """Why a chart is blank; None if it is not."""
    from ontogeny.views._chart_parts import blank_chart_reason

    return blank_chart_reason(chart)


def save_chart(chart: Any, path: str | Path) -> Path:
    """Write a chart as .png, .svg, .html (self-contained) or .json.

    Raises:
        BadInput: unknown file extension.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg", ".html", ".json"):
        raise BadInput(f"the name of a chart must end with .png, .svg, .html or .json, got {path.name!r}.")
    spec = _visible(chart.to_dict())
    # With a full disk the previous file stays.
    with atomic_path(path) as temporary:
        temporary.write_bytes(_encode(spec, path))
    return path


def _encode(spec: dict[str, Any], path: Path) -> bytes:
    import altair as alt
    import vl_convert

    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    match path.suffix:
        case ".png":
            picture: bytes = vl_convert.vegalite_to_png(spec, vl_version=version, scale=2)
            return picture
        case ".svg":
            text: str = vl_convert.vegalite_to_svg(spec, vl_version=version)
        case ".html":
            text = chart_page(spec, path.stem)
        case _:
            text = json.dumps(spec, indent=2)
    return text.encode()


def _visible(value: Any) -> Any:
    """A specification whose texts have no control character, which would abort the drawing of a picture."""
    if isinstance(value, str):
        return escape_control(value)
    if isinstance(value, dict):
        return {_visible(k): _visible(v) for k, v in value.items()}
    return [_visible(v) for v in value] if isinstance(value, list | tuple) else value
