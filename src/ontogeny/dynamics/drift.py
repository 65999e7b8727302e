"""Drift of directions over training: cosines to the last and the preceding checkpoint, of all pairs of steps, and of concepts."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.dynamics.blocks import cell_block
from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint, common_methods
from ontogeny.measurements.design import Design
from ontogeny.measurements.rows import RowContext, site_rows
from ontogeny.metrics.similarity import cosine
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.sites import Site
from ontogeny.storage.files import RecordBlock
from ontogeny.storage.run import Run

_DRIFT_METHODS = ("logistic", "ridge", "mass_mean")
_DIRECTION_KEY = "mass_mean/resid/direction"
_BLOCK = 16_000_000
"""Numbers of the products of one block of pairs."""
_NO_DIRECTION = "no direction: the class means coincide, or the fit failed"


def drift_rows(run: Run, design: Design, visits: Sequence[MeasuredCheckpoint], best: BestSite) -> Iterator[RecordBlock]:
    """Cosines over training at every site of the residual stream, and of all pairs of steps at the best site."""
    if design.concept.kind == "classes":
        return
    context = design.row_context(0, n=len(design.split.train), split=None)
    part = "resid" if "resid" in visits[0].sites else best.part
    sites = visits[0].sites[part]
    for method in (m for m in common_methods(visits) if m in _DRIFT_METHODS):
        final, previous = [], []
        for site, vectors in enumerate(_vectors(run, visits, f"{method}/{part}/direction", len(sites))):
            final.append(cosine(vectors, vectors[-1:].expand_as(vectors)))
            previous.append(cosine(vectors, vectors.roll(1, 0))[1:])
            if best.part == part and best.at == site:
                yield _all_pairs(context, visits, vectors, best, method)
        for metric, columns, shown in (("cosine_final", final, visits), ("cosine_previous", previous, visits[1:])):
            if shown:
                values = torch.stack(columns, 1).flatten()
                yield cell_block(
                    context, shown, [sites] * len(shown), values, metric=metric, method=method, reason=_NO_DIRECTION
                )


def _vectors(run: Run, visits: Sequence[MeasuredCheckpoint], key: str, sites: int) -> Iterator[Float[Tensor, "step d"]]:
    """Each site's direction at every checkpoint; as many sites are read at once as a block holds."""
    first = run.tensor_rows("directions", visits[0].unit, key, slice(0, 1))
    count = max(1, 4 * _BLOCK // (first.numel() * len(visits)))
    for start in range(0, sites, count):
        rows = slice(start, start + count)
        block = torch.stack([run.tensor_rows("directions", visit.unit, key, rows)[..., 0] for visit in visits])
        yield from block.unbind(1)


def _all_pairs(
    context: RowContext,
    visits: Sequence[MeasuredCheckpoint],
    vectors: Float[Tensor, "step d"],
    best: BestSite,
    method: str,
) -> RecordBlock:
    # In blocks of rows: the whole table of products would hold steps² × width numbers.
    rows = max(1, _BLOCK // vectors.numel())
    values = torch.cat([cosine(block[:, None], vectors[None]) for block in vectors.split(rows)]).flatten()
    first = [visit for visit in visits for _ in visits]
    return cell_block(
        context,
        first,
        [[best.site]] * len(first),
        values,
        metric="cosine",
        method=method,
        reason=_NO_DIRECTION,
        others=list(visits) * len(visits),
    )


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
