"""Records: the rows of a run, filtered, sorted and paged by SQL."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from ontogeny.dashboard.endpoints._common import LARGEST_NUMBER, StepQuery, finite, run_of
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.errors import unknown_name
from ontogeny.findings.selection import RowFilter
from ontogeny.records import RECORD_COLUMNS
from ontogeny.storage.files import sql_literal
from ontogeny.views import load_view

records_router = APIRouter()

MOST_ROWS = 500
"""Maximum number of rows of one request."""


@records_router.get("/runs/{run}/records")
def read_records(
    shown: Annotated[ShownRun, Depends(run_of)],
    view: str = "",
    concept: str = "",
    metric: str = "",
    site: str = "",
    stage: str = "",
    step: StepQuery = None,
    sort: str = "",
    descending: bool = False,
    start: Annotated[int, Query(ge=0, le=LARGEST_NUMBER)] = 0,
    most: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 50,
) -> dict[str, Any]:
    """Rows of the table of records: of a view, or those that have these values.

    Args:
        shown: The run.
        view: A view, whose rows are read; "" for all rows.
        concept: A concept; rows without one are of all concepts.
        metric: A metric.
        site: A site, or a part of a block.
        stage: A stage.
        step: A step.
        sort: Column by which they are sorted.
        descending: Whether the largest is first.
        start: Number of rows that are skipped.
        most: Maximum number of rows, at most 500.
    """
    if sort and sort not in RECORD_COLUMNS:
        raise unknown_name("column", sort, RECORD_COLUMNS)
    only = RowFilter((concept,) if concept else ())
    conditions = [f"{name} = {sql_literal(text)}" for name, text in (("metric", metric), ("stage", stage)) if text]
    if site:
        conditions.append(f"(site = {sql_literal(site)} or starts_with(site, {sql_literal(site + '.')}))")
    if step is not None:
        conditions.append(f"step = {int(step)}")
    where = load_view(view).where if view else "true"
    order = (
        f'"{sort}" {"desc" if descending else "asc"} nulls last'
        if sort
        else "concept, metric, stage, step, layer, head"
    )
    rows, count = shown.source(only).page(where, " and ".join(conditions) or "true", order, most, start)
    shown_columns = [name for name in RECORD_COLUMNS if name != "unit"]
    return {
        "columns": shown_columns,
        "rows": [
            [finite(value) for value in row] for row in rows[shown_columns].astype(object).itertuples(index=False)
        ],
        "count": count,
        "start": start,
    }
