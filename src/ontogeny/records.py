"""Records: one measured number per row, with all its coordinates.

Every measurement writes records and every view reads them; `docs/records.md` explains each metric. A value that could not be
measured is NaN with n = 0 and the reason in `note`, never 0.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import Any

from ontogeny.sites import Site

DATA_SHARE = "data_share"
"""Coordinate of the rows of a checkpoint in a stage with a data share."""

RECORD_COLUMNS: Mapping[str, str] = {
    "lineage": "VARCHAR",
    "stage": "VARCHAR",
    "step": "BIGINT",
    "tokens": "DOUBLE",
    "revision": "VARCHAR",
    "train_seed": "BIGINT",
    "concept": "VARCHAR",
    "site": "VARCHAR",
    "layer": "INTEGER",
    "head": "INTEGER",
    "position": "VARCHAR",
    "method": "VARCHAR",
    "metric": "VARCHAR",
    "control": "VARCHAR",
    "split": "VARCHAR",
    "value": "DOUBLE",
    "low": "DOUBLE",
    "high": "DOUBLE",
    "n": "BIGINT",
    "seed": "BIGINT",
    "note": "VARCHAR",
    "unit": "VARCHAR",
    "coords": "MAP(VARCHAR, VARCHAR)",
}
"""Name and DuckDB type of each column, in order."""


@dataclass(frozen=True)
class Record:
    """One measured number; a column that does not apply is None."""

    metric: str
    """auroc, accuracy, nhsic_ty, cosine_final, …"""
    value: float
    lineage: str | None = None
    stage: str | None = None
    step: int | None = None
    tokens: float | None = None
    """Training tokens, if the lineage gives them."""
    revision: str | None = None
    train_seed: int | None = None
    concept: str | None = None
    site: str | None = None
    layer: int | None = None
    head: int | None = None
    position: str | None = None
    method: str | None = None
    """Probe (logistic, mass_mean, …) or kernel (gaussian_50, linear, …)."""
    control: str | None = None
    """Name of the baseline (control_task, random_direction, untrained, surface_tfidf, …); None for the measurement itself."""
    split: str | None = None
    low: float = math.nan
    """Lower end of the 95 % interval, in the metric's unit."""
    high: float = math.nan
    n: int = 0
    """Number of examples; 0 if nothing could be measured."""
    seed: int | None = None
    note: str | None = None
    unit: str | None = None
    """Hash of the unit that wrote the row."""
    coords: Mapping[str, str] = field(default_factory=dict)
    """Further coordinates: other_step, other_concept, form, rank, …"""

    def __post_init__(self) -> None:
        if self.n == 0 and not math.isnan(self.value):
            raise ValueError(f"`n` of a measured {self.metric} must be above 0, got 0: write a missing value as NaN")
        if math.isnan(self.value) and not self.note:
            raise ValueError(f"`note` of a missing {self.metric} must be its reason, got {self.note!r}")


assert tuple(sorted(f.name for f in fields(Record))) == tuple(sorted(RECORD_COLUMNS)), (
    "Record and RECORD_COLUMNS must have the same columns"
)

IntervalEnds = tuple[float, float]
"""Lower and upper end of an interval."""
UNKNOWN_INTERVAL: IntervalEnds = (math.nan, math.nan)

_CHECKPOINT_COLUMNS = ("stage", "step", "tokens", "revision", "train_seed")


def make_record(
    metric: str,
    value: float,
    *,
    n: int,
    site: Site | None = None,
    interval: IntervalEnds = UNKNOWN_INTERVAL,
    note: str | None = None,
    reason: str | None = None,
    **columns: Any,
) -> Record:
    """A record with the columns of its site and of its interval; a NaN gets n = 0 and `reason` as its note.

    Args:
        reason: Note of a NaN; `note` if None.
        columns: Further columns of `Record`.
    """
    absent = math.isnan(value)
    return Record(
        metric,
        value,
        site=str(site) if site else None,
        layer=site.layer if site else None,
        head=site.head if site else None,
        low=interval[0],
        high=interval[1],
        n=0 if absent else n,
        note=(reason or note) if absent else note,
        **columns,
    )


@dataclass(frozen=True)
class StageRowBuilder:
    """Builds the rows of a stage × stage table, which share these columns; each names the other stage in its coords."""

    concept: str
    position: str | None
    method: str
    seed: int
    split: str | None = "test"
    site: Site | None = None

    def row(
        self,
        metric: str,
        value: float,
        stage: str,
        other: str | None = None,
        *,
        n: int,
        ends: IntervalEnds = UNKNOWN_INTERVAL,
        control: str | None = None,
        note: str | None = None,
        reason: str | None = "degenerate scores",
        **coords: object,
    ) -> Record:
        """One row; a NaN gets `reason` as its note. Coords become text, and False becomes `false`."""
        texts = {key: str(of).lower() if isinstance(of, bool) else str(of) for key, of in coords.items()}
        return make_record(
            metric,
            value,
            site=self.site,
            interval=UNKNOWN_INTERVAL if math.isnan(value) else ends,
            n=n,
            note=note,
            reason=reason,
            stage=stage,
            concept=self.concept,
            position=self.position,
            method=self.method,
            control=control,
            split=self.split,
            seed=self.seed,
            coords=({"other_stage": other} if other else {}) | texts,
        )


def stamp_checkpoint(records: Iterable[Record], checkpoint: Any) -> list[Record]:
    """Set the columns of a checkpoint: `stage`, `step`, `tokens`, `revision` and `train_seed` of any object that has them."""
    columns = {name: getattr(checkpoint, name) for name in _CHECKPOINT_COLUMNS}
    return [replace(record, **columns) for record in records]


def checkpoint_label(stage: str | None, step: float | None) -> str:
    """A step with its stage, as tables, axes and sentences write it: base 1,200.

    Args:
        stage: Stage of the checkpoint; None or "" if it is unknown.
        step: Step of the checkpoint, or of an event between two checkpoints; None, NaN or pandas.NA for the end of the stage.
    """
    return f"{stage} {_step_text(step)}" if stage else _step_text(step)


def _step_text(step: float | None) -> str:
    if not isinstance(step, Real) or math.isnan(step):  # None and pandas.NA are not numbers
        return "end"
    return f"{step:,.0f}" if step >= 10 or step % 1 == 0 else f"{step:.1f}"
