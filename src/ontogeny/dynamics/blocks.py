"""Rows of a summary as columns: one value for each checkpoint and site, or for each pair of checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint
from ontogeny.measurements.rows import RowContext
from ontogeny.sites import Site
from ontogeny.storage.files import RecordBlock, text_column


def cell_places(visits: Sequence[MeasuredCheckpoint], sites: Sequence[Sequence[Site]]) -> dict[str, Any]:
    """The columns of checkpoint and site, with one row for each site of each checkpoint, for the blocks of several metrics.

    Args:
        sites: Sites of each checkpoint; checkpoints with the same sites should share a list.
    """
    at = np.repeat(np.arange(len(visits)), [len(group) for group in sites])
    return {**_checkpoint_columns(visits, at), **_site_columns(sites)}


def cell_block(
    context: RowContext,
    places: Mapping[str, Any],
    values: Float[Tensor, " cell"],
    *,
    metric: str,
    method: str,
    reason: str,
    note: str | None = None,
) -> RecordBlock:
    """One row for each site of each checkpoint.

    Args:
        places: From `cell_places`.
        values: Values of all checkpoints one after another.
        reason: Note of a NaN.
    """
    return RecordBlock({**_shared_columns(context, values, metric, method, reason, note), **places}, {})


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
    columns = _shared_columns(context, values.flatten(), metric, method, reason, None)
    place = {"site": str(site), "layer": site.layer, "head": site.head}
    other = {
        "other_step": text_column([str(visit.step) for visit in visits], second),
        "other_stage": text_column([visit.stage for visit in visits], second),
    }
    return RecordBlock({**columns, **_checkpoint_columns(visits, first), **place}, other)


def _shared_columns(
    context: RowContext, values: Float[Tensor, " cell"], metric: str, method: str, reason: str, note: str | None
) -> dict[str, Any]:
    value = values.double().numpy()
    absent = np.isnan(value)
    some = bool(absent.any())
    return {
        "metric": metric,
        "method": method,
        "concept": context.concept,
        "position": context.position,
        "split": context.split,
        "seed": context.seed,
        "value": value,
        "n": np.where(absent, 0, context.n) if some else context.n,
        "note": text_column([note, reason], absent.astype(np.int64)) if some else note,
    }


def _checkpoint_columns(visits: Sequence[MeasuredCheckpoint], at: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "stage": _texts(at, [visit.stage for visit in visits]),
        "revision": _texts(at, [visit.revision for visit in visits]),
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


def _texts(at: NDArray[np.int64], values: Sequence[str | None]) -> Any:
    """A column of texts or nulls, `values[at]`; the text itself if it is the same in all rows."""
    return values[0] if len(set(values)) == 1 else text_column(values, at)


def _numbers(at: NDArray[np.int64], values: Sequence[float | None]) -> Any:
    """A column of numbers or nulls, `values[at]`; the number itself if it is the same in all rows."""
    import pandas as pd

    if len(set(values)) == 1:
        return values[0]
    whole = all(value is None or isinstance(value, int) for value in values)
    if None not in values:
        return np.array(values, dtype=np.int64 if whole else np.float64)[at]
    return pd.array(list(values), dtype="Int64" if whole else "Float64").take(at)
