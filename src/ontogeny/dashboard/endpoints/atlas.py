"""Atlas: the chart of a metric at every layer, and its cells at one checkpoint."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from ontogeny.dashboard.atlas import atlas_cells, cell_values, difference_cells, draw_atlas
from ontogeny.dashboard.endpoints._common import run_of
from ontogeny.dashboard.selection import Selection
from ontogeny.dashboard.shown_run import ShownRun

atlas_router = APIRouter()


def selection_of(request: Request, shown: Annotated[ShownRun, Depends(run_of)]) -> Selection:
    """The selection in the query of a request."""
    return Selection.from_query(request.query_params, shown.describe())


@atlas_router.get("/runs/{run}/atlas")
def read_atlas(
    shown: Annotated[ShownRun, Depends(run_of)], chosen: Annotated[Selection, Depends(selection_of)]
) -> dict[str, Any]:
    """The chart of checkpoint A, or of B − A if there is a checkpoint B and `difference` is set."""
    return _chart(shown, chosen, difference=False)


@atlas_router.get("/runs/{run}/atlas/difference")
def read_difference(
    shown: Annotated[ShownRun, Depends(run_of)], chosen: Annotated[Selection, Depends(selection_of)]
) -> dict[str, Any]:
    """The chart of checkpoint B minus checkpoint A."""
    return _chart(shown, chosen, difference=True)


@atlas_router.get("/runs/{run}/atlas/cells")
def read_cells(
    shown: Annotated[ShownRun, Depends(run_of)], chosen: Annotated[Selection, Depends(selection_of)]
) -> dict[str, Any]:
    """The rows of the data set `cells` of the chart, at checkpoint A."""
    return {"cells": cell_values(atlas_cells(shown, chosen).at(chosen.stage, chosen.step))}


@atlas_router.get("/runs/{run}/atlas/difference/cells")
def read_difference_cells(
    shown: Annotated[ShownRun, Depends(run_of)], chosen: Annotated[Selection, Depends(selection_of)]
) -> dict[str, Any]:
    """The rows of the data set `cells` of the chart of the difference."""
    return {"cells": cell_values(difference_cells(atlas_cells(shown, chosen), chosen))}


def _chart(shown: ShownRun, chosen: Selection, *, difference: bool) -> dict[str, Any]:
    cells = atlas_cells(shown, chosen)
    if cells.rows["value"].notna().sum() == 0:
        return {"name": "atlas", "tabs": [], "reason": f"No {chosen.metric or 'metric'} at a layer in this run."}
    spec = draw_atlas(shown, chosen, difference=difference).to_dict(validate=False)
    name = "atlas-difference" if difference else "atlas"
    return {
        "name": name,
        "title": name,
        "caption": spec["description"],
        "tabs": [{"label": "", "spec": spec}],
        "reason": "",
    }
