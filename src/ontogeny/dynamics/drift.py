"""Drift of directions over training: cosines to the last and the preceding checkpoint, of all pairs of steps, and of concepts."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.dynamics.blocks import cell_block, cell_places, pair_block
from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint, common_methods
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import RowContext, site_rows
from ontogeny.metrics.similarity import cosine, cosine_of_units, unit_vectors
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.sites import Site
from ontogeny.storage.files import RecordBlock
from ontogeny.storage.run import Run

_DRIFT_METHODS = ("logistic", "ridge", "mass_mean")
_DIRECTION_KEY = "mass_mean/resid/direction"
_NO_DIRECTION = "no direction: the class means coincide, or the fit failed"


def drift_rows(run: Run, design: Design, visits: Sequence[MeasuredCheckpoint], best: BestSite) -> Iterator[RecordBlock]:
    """Cosines over training at every site of the residual stream, and of all pairs of steps at the best site."""
    if design.concept.kind == "classes":
        return
    context = design.row_context(0, n=len(design.split.train), split=None)
    part = "resid" if "resid" in visits[0].sites else best.part
    sites = visits[0].sites[part]
    for method in (m for m in common_methods(visits) if m in _DRIFT_METHODS):
        make = partial(cell_block, context, method=method, reason=_NO_DIRECTION)
        key = f"{method}/{part}/direction"
        last = _unit_rows(run.tensor_rows("directions", visits[-1].unit, key, slice(None)))
        # One table each for all checkpoints: small tensors kept between the large ones would leave holes in memory that nothing fills.
        final, previous = torch.empty(len(visits), len(sites)), torch.empty(len(visits) - 1, len(sites))
        at_best = last.new_empty(len(visits) if best.part == part else 0, last.shape[1])
        before = None
        earlier = run.each_tensor("directions", [visit.unit for visit in visits[:-1]], key)
        for place, units in enumerate(itertools.chain(map(_unit_rows, earlier), [last])):
            final[place] = cosine_of_units((units * last).sum(-1))
            if before is not None:
                previous[place - 1] = cosine_of_units((units * before).sum(-1))
            if len(at_best):
                at_best[place] = units[best.at]
            before = units
        if len(at_best):
            pairs = cosine_of_units(at_best @ at_best.T)
            yield pair_block(context, visits, best.site, pairs, metric="cosine", method=method, reason=_NO_DIRECTION)
        yield make(cell_places(visits, [sites] * len(visits)), final.flatten(), metric="cosine_final")
        if len(previous):
            places = cell_places(visits[1:], [sites] * len(previous))
            yield make(places, previous.flatten(), metric="cosine_previous")


def _unit_rows(directions: Float[Tensor, "site d 1"]) -> Float[Tensor, "site d"]:
    return unit_vectors(directions[..., 0])


def concept_cosine_rows(
    run: Run, designs: Mapping[str, Design], visits: Mapping[str, Sequence[MeasuredCheckpoint]], seed: int
) -> list[Record]:
    """Cosine of the mass-mean directions of two concepts at their last common checkpoint, at each site of the residual stream."""
    rows: list[Record] = []
    names = [
        n
        for n, v in visits.items()
        if designs[n].concept.kind == "binary" and "mass_mean" in v[-1].methods and "resid" in v[-1].sites
    ]
    vectors = {n: run.directions(visits[n][-1].unit, [_DIRECTION_KEY])[_DIRECTION_KEY][..., 0] for n in names}
    for a in names:
        about = designs[a].row_context(seed, n=len(designs[a].split.train), split=None)
        last = visits[a][-1]
        for b in names:
            if visits[b][-1].checkpoint != last.checkpoint:
                continue
            values = cosine(vectors[a], vectors[b])
            rows += _drift_cells(about, last, "cosine", values, last.sites["resid"], "mass_mean", {"other_concept": b})
    return rows


def _drift_cells(
    about: RowContext,
    visit: MeasuredCheckpoint,
    metric: str,
    values: Float[Tensor, " site"],
    sites: Sequence[Site],
    method: str,
    coords: Mapping[str, str] | None = None,
) -> list[Record]:
    rows = site_rows(about, metric, values, sites, method=method, coords=coords or {}, reason=_NO_DIRECTION)
    return stamp_checkpoint(rows, visit)
