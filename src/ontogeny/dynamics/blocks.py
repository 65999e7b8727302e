"""Rows of a summary as columns: one value for each checkpoint and site, or for each pair of checkpoints."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint
from ontogeny.measurements.rows import RowContext
from ontogeny.sites import Site
from ontogeny.storage.files import RecordBlock, text_column


def cell_block(
    context: RowContext,
    visits: Sequence[MeasuredCheckpoint],
    sites: Sequence[Sequence[Site]],
    values: Float[Tensor, " cell"],
    *,
    metric: str,
    method: str,
    reason: str,
    note: str | None = None,
) -> RecordBlock:
    """One row for each site of each checkpoint.

    Args:
        sites: Sites of each checkpoint; checkpoints with the same sites should share a list.
        values: Values of all checkpoints one after another.
        reason: Note of a NaN.
    """
    at = np.repeat(np.arange(len(visits)), [len(group) for group in sites])
    columns = _shared_columns(context, values, metric=metric, method=method, reason=reason, note=note)
    return RecordBlock({**columns, **_checkpoint_columns(visits, at), **_site_columns(sites)}, {})


def pair_block(
    context: RowContext,
    visits: Sequence[MeasuredCheckpoint],
    site: Site,
    values: Float[Tensor, "step step"],
    *,
    metric: str,
    method: str,
    reason: str,
) -> RecordBlock:
    """One row for each pair of checkpoints at one site; the second one is in the further coordinates.

    Args:
        reason: Note of a NaN.
    """
    count = np.arange(len(visits))
    first, second = np.repeat(count, len(visits)), np.tile(count, len(visits))
    columns = _shared_columns(context, values.flatten(), metric=metric, method=method, reason=reason, note=None)
    place = {"site": str(site), "layer": site.layer, "head": site.head}
    other = {
        "other_step": text_column([str(visit.step) for visit in visits], second),
        "other_stage": text_column([visit.stage for visit in visits], second),
    }
    return RecordBlock({**columns, **_checkpoint_columns(visits, first), **place}, other)


def _shared_columns(
    context: RowContext,
    values: Float[Tensor, " cell"],
    *,
    metric: str,
    method: str,
    reason: str,
    note: str | None,
) -> dict[str, Any]:
    value = values.double().numpy()
    absent = np.isnan(value)
    return {
        "metric": metric,
        "method": method,
        "concept": context.concept,
        "position": context.position,
        "split": context.split,
        "seed": context.seed,
        "value": value,
        "n": np.where(absent, 0, context.n),
        "note": text_column([note, reason], absent.astype(np.int64)),
    }


def _checkpoint_columns(visits: Sequence[MeasuredCheckpoint], at: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "stage": text_column([visit.stage for visit in visits], at),
        "revision": text_column([visit.revision for visit in visits], at),
        "step": _numbers(at, [visit.step for visit in visits]),
        "tokens": _numbers(at, [visit.tokens for visit in visits]),
        "train_seed": _numbers(at, [visit.train_seed for visit in visits]),
    }


def _site_columns(sites: Sequence[Sequence[Site]]) -> dict[str, Any]:
    names: dict[Site, int] = {}
    places: dict[int, NDArray[np.int64]] = {}
    for group in sites:
        if id(group) not in places:
            places[id(group)] = np.array([names.setdefault(site, len(names)) for site in group], dtype=np.int64)
    at = np.concatenate([places[id(group)] for group in sites])
    return {
        "site": text_column([str(site) for site in names], at),
        "layer": _numbers(at, [site.layer for site in names]),
        "head": _numbers(at, [site.head for site in names]),
    }


def _numbers(at: NDArray[np.int64], values: Sequence[float | None]) -> Any:
    """A column of numbers or nulls: `values[at]`."""
    import pandas as pd

    if all(value is None for value in values):
        return None
    whole = all(value is None or isinstance(value, int) for value in values)
    return pd.array(list(values), dtype="Int64" if whole else "Float64").take(at)
