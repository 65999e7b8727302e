"""Drift of directions over training: cosines to the last and the preceding checkpoint, of all pairs of steps, and of concepts."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint, common_methods
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import RowContext, site_rows
from ontogeny.metrics.similarity import cosine
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.sites import Site
from ontogeny.storage.run import Run

_DRIFT_METHODS = ("logistic", "ridge", "mass_mean")
_DIRECTION_KEY = "mass_mean/resid/direction"
_NO_DIRECTION = "no direction: the class means coincide, or the fit failed"


def drift_rows(run: Run, design: Design, visits: Sequence[MeasuredCheckpoint], best: BestSite) -> list[Record]:
    """Cosines over training at every site of the residual stream, and of all pairs of steps at the best site."""
    if design.concept.kind == "classes":
        return []
    about = design.row_context(0, n=len(design.split.train), split=None)
    rows: list[Record] = []
    part = "resid" if "resid" in visits[0].sites else best.part
    sites = visits[0].sites[part]
    for method in (m for m in common_methods(visits) if m in _DRIFT_METHODS):
        key = f"{method}/{part}/direction"
        vectors = torch.stack([run.directions(visit.unit, [key])[key][..., 0] for visit in visits])
        for metric, others, start in (
            ("cosine_final", vectors[-1:].expand_as(vectors), 0),
            ("cosine_previous", vectors.roll(1, 0), 1),
        ):
            for visit, values in list(zip(visits, cosine(vectors, others), strict=True))[start:]:
                rows += _drift_cells(about, visit, metric, values, sites, method)
        if best.part == part:
            rows += _all_pairs(about, visits, vectors[:, best.at], best, method)
    return rows


def _all_pairs(
    about: RowContext,
    visits: Sequence[MeasuredCheckpoint],
    vectors: Float[Tensor, "step d"],
    best: BestSite,
    method: str,
) -> Iterator[Record]:
    table = cosine(vectors[:, None], vectors[None])
    for visit, line in zip(visits, table, strict=True):
        for other, value in zip(visits, line, strict=True):
            coords = {"other_step": str(other.step), "other_stage": other.stage}
            yield from _drift_cells(about, visit, "cosine", value[None], [best.site], method, coords)


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
