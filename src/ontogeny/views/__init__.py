"""Pictures: one file a picture, that says what it needs and draws rows of the table as an Altair chart.

A view is a module with a `title`, the columns it `needs`, `select(records)` that keeps the rows it can use, and
`draw(records)` that returns a chart, also of an empty table. It gets the whole table and neither changes nor measures it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ontogeny import plugins
from ontogeny.errors import BadInput
from ontogeny.storage.files import atomic_path


@dataclass(frozen=True)
class View:
    name: str
    title: str
    needs: frozenset[str]
    """Columns of the table without which there is nothing to draw."""
    select: Callable[[pd.DataFrame], pd.DataFrame]
    plain: Callable[[pd.DataFrame], Any]
    """The module's `draw`: without theme, to be put into other charts."""
    caption: str
    """What the picture shows and how to read it: the module's docstring."""
    place: int = 50
    """Where it stands in a report: small numbers come first."""

    def draw(self, records: pd.DataFrame) -> Any:
        """The picture, dressed, with its caption for those who cannot see it; a chart that says why if there is nothing to see.

        Raises:
            BadInput: the table lacks a column that the view needs.
        """
        from ontogeny.views._chart_parts import apply_theme

        missing = sorted(self.needs - set(records.columns))
        if missing:
            raise BadInput(
                f"view {self.name!r} needs the columns {', '.join(missing)}: pass rows of a run's table of records."
            )
        return apply_theme(self.plain(records)).properties(description=f"{self.title}. {self.caption}")


def load_view(name: str) -> View:
    """One view by its name.

    Raises:
        BadInput: no view has this name.
    """
    module = plugins.load_plugin("views", name)
    caption = " ".join((module.__doc__ or "").split())
    place = getattr(module, "place", 50)
    return View(name, module.title, frozenset(module.needs), module.select, module.draw, caption, place)


def load_views() -> list[View]:
    """All views, in the order in which a report shows them."""
    return sorted((load_view(name) for name in plugins.list_plugins("views")), key=lambda v: (v.place, v.name))


def empty_reason(chart: Any) -> str | None:
    """The reason why a drawn view shows nothing; None for one that does."""
    from ontogeny.views._chart_parts import blank_chart_reason

    return blank_chart_reason(chart)


def save_chart(chart: Any, path: str | Path) -> Path:
    """Write a chart as .png, .svg, .html or .json; the page needs no network.

    Raises:
        BadInput: another ending.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg", ".html", ".json"):
        raise BadInput(f"cannot save a chart as {path.name!r}: end the name with .png, .svg, .html or .json.")
    rules: dict[str, dict[str, Any]] = {".png": {"scale_factor": 2}, ".html": {"inline": True}}
    # A full disk leaves the picture that was there.
    with atomic_path(path) as temporary:
        chart.save(str(temporary), format=path.suffix[1:], **rules.get(path.suffix, {}))
    return path
