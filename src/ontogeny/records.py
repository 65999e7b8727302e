"""The table of records: one measured number a row, with all its coordinates.

The one contract between all parts: whatever is measured becomes rows, whatever is shown reads rows. `docs/records.md` says
what each metric means. Absent is absent: a value that could not be measured is NaN with n = 0 and a reason in `note`, never 0.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

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
"""Name and DuckDB type of each column, in their order."""


@dataclass(frozen=True)
class Record:
    """One measured number; a coordinate that does not apply is None."""

    metric: str
    """What was measured: auroc, accuracy, nhsic_ty, cosine_final, …"""
    value: float
    lineage: str | None = None
    stage: str | None = None
    step: int | None = None
    tokens: float | None = None
    """Training tokens seen, where the lineage knows them."""
    revision: str | None = None
    train_seed: int | None = None
    concept: str | None = None
    site: str | None = None
    layer: int | None = None
    head: int | None = None
    position: str | None = None
    method: str | None = None
    """How: the fit (logistic, mass_mean, …) or the kernel (gaussian_50, linear, …)."""
    control: str | None = None
    """None for the thing itself, else which floor: control_task, random_direction, untrained, surface_tfidf, …"""
    split: str | None = None
    low: float = math.nan
    """Lower end of the 95 % interval, in the metric's unit."""
    high: float = math.nan
    n: int = 0
    """Examples behind the value; 0 where nothing could be measured."""
    seed: int | None = None
    note: str | None = None
    unit: str | None = None
    """Hash of the work unit that wrote the row."""
    coords: Mapping[str, str] = field(default_factory=dict)
    """What else a row needs: other_step, other_concept, form, rank, …"""

    def __post_init__(self) -> None:
        if self.n == 0 and not math.isnan(self.value):
            raise ValueError(f"a measured {self.metric} needs n > 0: absent is NaN with n = 0 and a reason")
        if math.isnan(self.value) and not self.note:
            raise ValueError(f"a {self.metric} that could not be measured needs its reason in `note`")


assert tuple(sorted(f.name for f in fields(Record))) == tuple(sorted(RECORD_COLUMNS)), (
    "Record and COLUMNS must name the same"
)
