"""Charts: every view of the package as Vega-Lite, drawn from the records of a run or of one of its concepts."""

import contextlib
import json
import re
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from ontogeny.dashboard.endpoints._common import StepQuery, run_of
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.errors import BadInput
from ontogeny.findings.selection import RecordSource, RowFilter, named_metrics
from ontogeny.report.pictures import draw_picture
from ontogeny.views import load_view, load_views

charts_router = APIRouter()
_DRAWN = "metric <> 'best_site'"
"""Many views read the best site of a concept beside their rows; on its own they have nothing to draw."""
_IDLE = 2.0
"""Seconds without a request after which a view is drawn ahead."""


@charts_router.get("/charts")
def list_charts() -> list[dict[str, str]]:
    """Name, title and caption of every view, in the order of a report."""
    return [{"name": view.name, "title": view.title, "caption": view.caption} for view in load_views()]


@charts_router.get("/runs/{run}/charts")
def count_chart_rows(shown: Annotated[ShownRun, Depends(run_of)]) -> dict[str, int]:
    """Number of rows of each view in this run; a view without rows has nothing to draw."""
    views = load_views()
    conditions = [f"({view.where}) and {_DRAWN}" for view in views]
    counts = shown.result("counts", lambda: shown.source().counts(conditions), apart=True)
    return dict(zip((view.name for view in views), counts, strict=True))


def views_with_rows(shown: ShownRun) -> frozenset[str]:
    """Names of the views that have rows in a run.

    Of large runs counting takes seconds: here a view is left out if the run has none of its metrics, else its first row is looked for, at
    any site and checkpoint.
    """
    return shown.result("views", lambda: _views_with_rows(shown), apart=True)


def _views_with_rows(shown: ShownRun) -> frozenset[str]:
    metrics = set(shown.query("select distinct metric from records")["metric"])
    found = []
    for view in load_views():
        named = named_metrics(view.where)
        if not named or "metric like" in view.where or metrics.intersection(named):
            anywhere = re.sub(r"\{[^}]*\}", "true", view.where)
            first = shown.query(f"select 1 from records where ({anywhere}) and {_DRAWN} limit 1")
            found += [view.name] if len(first) else []
    return frozenset(found)


@charts_router.get("/runs/{run}/charts/{view}", response_model=dict[str, Any])
def send_chart(
    shown: Annotated[ShownRun, Depends(run_of)], view: str, concept: str = "", stage: str = "", step: StepQuery = None
) -> Response:
    """A view as the tabs of a report, or the reason why it has nothing to draw.

    Args:
        shown: The run.
        view: Name of the view.
        concept: The one concept that is drawn; "" for all.
        stage: The one stage that is drawn; "" for all.
        step: The one step that is drawn; all by default.
    """
    only = RowFilter((concept,) if concept else (), (), (stage,) if stage else (), step)
    return Response(_chart(shown, view, only), media_type="application/json")


def read_chart(shown: ShownRun, view: str) -> dict[str, Any]:
    """The answer about a view of the whole run."""
    chart: dict[str, Any] = json.loads(_chart(shown, view, RowFilter()))
    return chart


def draw_first(shown: ShownRun, concept: str) -> None:
    """Draw charts in the order of a page while its browser loads the scripts, until it asks for them itself, a second later."""
    began, only = time.monotonic(), RowFilter((concept,) if concept else ())
    offered = views_with_rows(shown)
    for name in [view.name for view in load_views() if view.name in offered]:
        if shown.closed.is_set() or shown.asked > began:
            return
        with contextlib.suppress(BadInput):  # the page shows it
            _chart(shown, name, only)


def draw_ahead(shown: ShownRun) -> None:
    """Draw the views of a run that have rows while no page asks for anything, so that a reader who opens them does not wait."""
    drawable = views_with_rows(shown)
    for view in load_views():
        while not shown.closed.wait(_IDLE / 20) and time.monotonic() - shown.asked < _IDLE:
            pass
        if shown.closed.is_set():
            return
        if view.name in drawable:
            _chart(shown, view.name, RowFilter())


def _chart(shown: ShownRun, view: str, only: RowFilter) -> bytes:
    """Kept as text: FastAPI looks at every number of an answer that it encodes itself, at each request."""

    def encode() -> bytes:
        text = json.dumps(_draw(shown, view, only), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode(errors="replace")

    return shown.result(("chart", view, only), encode)


def _draw(shown: ShownRun, name: str, only: RowFilter) -> dict[str, Any]:
    view = load_view(name)
    source = shown.result(("checked source", only), lambda: _checked_source(shown, only))
    picture, reason = draw_picture(view, source, table=False)  # tables are paged in SQL
    about = {"name": name, "title": view.title, "caption": view.caption}
    if picture is None:
        return {**about, "tabs": [], "reason": reason}
    tabs = [{"label": tab.label, **packed} for tab, packed in zip(picture.tabs, picture.packed, strict=True)]
    return {**about, "tabs": tabs, "reason": ""}


def _checked_source(shown: ShownRun, only: RowFilter) -> RecordSource:
    only.check(shown.query)
    return shown.source(only)
