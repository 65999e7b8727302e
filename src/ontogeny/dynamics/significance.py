"""Significance of every cell of the heat map, corrected for the number of cells, from one set of permutations.

The null of each unit is kept in `significance/`, so that a new checkpoint costs its own permutations only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.dynamics.blocks import cell_block, cell_places
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint, common_methods
from ontogeny.errors import BadInput
from ontogeny.measurements.design import Design
from ontogeny.measurements.scores import metrics_for, score_test
from ontogeny.measurements.settings import MEASURE_VERSION
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.sites import Site
from ontogeny.statistics.fdr import q_values
from ontogeny.statistics.permutation import familywise_p, least_p, permuted_labels
from ontogeny.storage import checksums
from ontogeny.storage.files import RecordBlock, content_digest, read_tensor_header, read_tensors, write_tensors
from ontogeny.storage.run import Run

_SIGNIFICANCE_METHODS = ("logistic", "ridge", "mass_mean")
_NULLS_VERSION = f"{MEASURE_VERSION}.3"
"""Version of what `significance/` keeps."""
_LEVEL = 0.05
_FAILED = "the score could not be computed"

_FIELDS = ("maxima", "observed", "p")
_UnitNull = Mapping[str, Float[Tensor, " cell"]]
"""`maxima` over the unit's cells for each permutation, and `observed` and `p` of each cell."""


def significance_rows(
    run: Run,
    design: Design,
    visits: Sequence[MeasuredCheckpoint],
    seed: int,
    on_checkpoint: Callable[[int, int], None] = lambda done, total: None,
) -> list[RecordBlock]:
    """Family-wise p of each cell, against the permutation maximum over all steps and sites, and its Benjamini–Hochberg q.

    Args:
        on_checkpoint: Called with how many of how many checkpoints have their null.
    """
    context = design.row_context(seed)
    methods = [method for method in common_methods(visits) if method in _SIGNIFICANCE_METHODS]
    labels = permuted_labels(design.y_test, design.permutations)
    least = least_p(design.y_test, labels)
    nulls = _unit_nulls(run, design, visits, methods, labels, on_checkpoint)
    sites = _sites_of(visits)
    of_whole, of_head = (cell_places(visits, _select(sites, heads)) for heads in (False, True))
    masks = {id(group): torch.tensor([site.head is not None for site in group]) for group in sites}
    is_head = torch.cat([masks[id(group)] for group in sites])
    whole, heads = list[RecordBlock](), list[RecordBlock]()
    for method in methods:
        units = [nulls[f"{visit.unit}/{method}"] for visit in visits]
        maxima = torch.stack([unit["maxima"] for unit in units]).amax(0)
        p = familywise_p(torch.cat([unit["observed"] for unit in units]), maxima)
        q = q_values(torch.cat([unit["p"] for unit in units]))
        note = f"{len(maxima)} permutations, {len(p)} cells, p at least {least:.2g}"
        make = partial(cell_block, context, method=method, note=note, reason=_FAILED)
        for metric, values in (("p_familywise", p), ("q", q)):
            whole.append(make(of_whole, values[~is_head], metric=metric))
            heads.append(make(of_head, values[is_head], metric=metric))
    # Heads last, as in the parts of checkpoints: a query of layers skips them.
    return [block for block in (*whole, *heads) if len(block.columns["value"])]


def earliest_site_rows(
    run: Run, design: Design, visits: Sequence[MeasuredCheckpoint], method: str, seed: int
) -> list[Record]:
    """The lowest layer of the residual stream that reads a concept at the end of each stage, by family-wise p.

    The family is all sites of the stream at the last checkpoints of the stages.
    """
    lasts = list({visit.stage: visit for visit in visits if "resid" in visit.sites}.values())
    if not lasts or any(method not in visit.methods for visit in lasts):
        return []
    labels = permuted_labels(design.y_test, design.permutations)
    alone = [replace(visit, sites={"resid": visit.sites["resid"]}) for visit in lasts]
    nulls = [_unit_null(run, design, visit, method, labels) for visit in alone]
    maxima = torch.stack([null["maxima"] for null in nulls]).amax(0)
    context, rows = design.row_context(seed), []
    for visit, null in zip(alone, nulls, strict=True):
        p = familywise_p(null["observed"], maxima)
        read = (p <= _LEVEL).nonzero().flatten().tolist()
        first = min(read, key=lambda at: visit.sites["resid"][at].layer) if read else None
        site = None if first is None else visit.sites["resid"][first]
        note = (
            None
            if first is None
            else f"p = {float(p[first]):.2g} among {len(maxima)} permutations of all layers and stages"
        )
        row = context.row(
            "earliest_site",
            float("nan") if site is None else float(site.layer),
            site,
            method=method,
            note=note,
            reason="no layer reads the concept at the end of the stage",
        )
        rows += stamp_checkpoint([row], visit)
    return rows


def _sites_of(visits: Sequence[MeasuredCheckpoint]) -> list[list[Site]]:
    """The sites of all parts of each checkpoint; checkpoints with the same sites share a list."""
    lists: dict[tuple[int, ...], list[Site]] = {}
    keys = [tuple(map(id, visit.sites.values())) for visit in visits]
    for key, visit in zip(keys, visits, strict=True):
        if key not in lists:
            lists[key] = [site for part in visit.sites.values() for site in part]
    return [lists[key] for key in keys]


def _select(sites: Sequence[Sequence[Site]], heads: bool) -> list[list[Site]]:
    """The sites that are heads, or those that are not, of each checkpoint; equal lists stay one."""
    selected = {id(group): [site for site in group if (site.head is not None) == heads] for group in sites}
    return [selected[id(group)] for group in sites]


def _unit_nulls(
    run: Run,
    design: Design,
    visits: Sequence[MeasuredCheckpoint],
    methods: Sequence[str],
    labels: Tensor,
    on_checkpoint: Callable[[int, int], None],
) -> dict[str, _UnitNull]:
    """The null of each unit and method; those that an earlier summary computed are read."""
    path = run.folder / "significance" / f"{content_digest(design.concept.name)}.safetensors"
    known = _read_nulls(path)
    wanted = {f"{visit.unit}/{method}": (visit, method) for visit in visits for method in methods}
    nulls = {key: known[key] for key in wanted if key in known}
    missing = [key for key in wanted if key not in nulls]
    for done, key in enumerate(missing):
        visit, method = wanted[key]
        on_checkpoint(done // len(methods), len(visits))
        nulls[key] = _unit_null(run, design, visit, method, labels)
    if missing:
        _write_nulls(path, nulls)
    return nulls


def _unit_null(run: Run, design: Design, visit: MeasuredCheckpoint, method: str, labels: Tensor) -> _UnitNull:
    if design.test_folds is not None:
        return _refit_null(run, visit, method)
    metric = metrics_for(design.concept.kind)[0]
    held_out = run.scores(visit.unit, [f"{method}/{part}" for part in visit.sites])
    tests = [score_test(metric, held_out[f"{method}/{part}"], design.y_test, labels) for part in visit.sites]
    return {
        "maxima": torch.stack([test.maxima for test in tests]).amax(0),
        "observed": torch.cat([test.observed for test in tests]),
        "p": torch.cat([test.p for test in tests]),
    }


def _refit_null(run: Run, visit: MeasuredCheckpoint, method: str) -> _UnitNull:
    """The null that a cross-fitted unit kept: of probes fitted again under permuted labels."""
    names = [f"{method}/{part}/null_{name}" for part in visit.sites for name in ("maxima", "observed", "p")]
    kept = run.scores(visit.unit, names)
    maxima, observed, p = (
        [kept[f"{method}/{part}/null_{name}"] for part in visit.sites] for name in ("maxima", "observed", "p")
    )
    return {"maxima": torch.stack(maxima).amax(0), "observed": torch.cat(observed), "p": torch.cat(p)}


def _write_nulls(path: Path, nulls: Mapping[str, _UnitNull]) -> None:
    """Keep nulls one after another in one tensor for each field: single ones would take as long to read as to compute."""
    header = {"version": _NULLS_VERSION, "keys": list(nulls), "cells": [len(null["p"]) for null in nulls.values()]}
    tensors = {name: torch.cat([null[name] for null in nulls.values()]) for name in _FIELDS}
    write_tensors(path, tensors, header, writer=checksums.atomic_part)


def _read_nulls(path: Path) -> dict[str, _UnitNull]:
    """Nulls that an earlier summary kept; none if the file is missing, damaged or of another version."""
    try:
        if path.is_file():
            checksums.check_file(path)
        if not path.is_file() or (header := read_tensor_header(path, ["version"]))["version"] != _NULLS_VERSION:
            return {}
        tensors = read_tensors(path)
        keys, cells = header["keys"], header["cells"]
        sizes = {"maxima": len(tensors["maxima"]) // max(1, len(keys)), "observed": cells, "p": cells}
        each = [tensors[name].split(sizes[name]) for name in _FIELDS]
        return {key: dict(zip(_FIELDS, null, strict=True)) for key, *null in zip(keys, *each, strict=True)}
    except (BadInput, KeyError, ValueError, TypeError, RuntimeError):
        return {}
