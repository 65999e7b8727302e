"""From tensors over sites to records: one row a cell, absent values with their reason."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from ontogeny.lineage import Checkpoint
from ontogeny.records import Record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import Interval


@dataclass(frozen=True)
class RowContext:
    """What the rows of one measurement have in common."""

    concept: str
    position: str
    n: int
    """Examples behind each value."""
    seed: int
    split: str | None = "test"


def site_rows(
    about: RowContext,
    metric: str,
    values: Float[Tensor, " site"],
    sites: Sequence[Site],
    *,
    method: str,
    control: str | None = None,
    interval: Interval | None = None,
    n: int | None = None,
    split: str | None = None,
    note: str | None = None,
    coords: Mapping[str, str] | None = None,
    reason: str = "degenerate scores",
) -> list[Record]:
    """A row for each site; `reason` is what a NaN gets as its note."""
    lows = interval.low.tolist() if interval else [math.nan] * len(sites)
    highs = interval.high.tolist() if interval else [math.nan] * len(sites)
    count = about.n if n is None else n
    return [
        Record(
            metric=metric,
            value=value,
            concept=about.concept,
            site=str(site),
            layer=site.layer,
            head=site.head,
            position=about.position,
            method=method,
            control=control,
            split=split or about.split,
            low=low,
            high=high,
            n=0 if math.isnan(value) else count,
            seed=about.seed,
            note=reason if math.isnan(value) else note,
            coords=coords or {},
        )
        for site, value, low, high in zip(sites, values.tolist(), lows, highs, strict=True)
    ]


@dataclass(frozen=True)
class CheckpointStamp:
    """Which checkpoint a unit's rows belong to."""

    lineage: str
    unit: str
    stage: str | None = None
    step: int | None = None
    tokens: float | None = None
    revision: str | None = None
    train_seed: int | None = None

    @classmethod
    def of(cls, lineage: str, unit: str, checkpoint: Checkpoint) -> "CheckpointStamp":
        """Of one checkpoint; a folder, which has no revision, is called by its name."""
        c = checkpoint
        return cls(lineage, unit, c.stage, c.step, c.tokens, c.revision or c.name, c.train_seed)

    def on(self, records: Iterable[Record]) -> list[Record]:
        return [
            replace(
                record,
                lineage=self.lineage,
                stage=self.stage,
                step=self.step,
                tokens=self.tokens,
                revision=self.revision,
                train_seed=self.train_seed,
                unit=self.unit,
            )
            for record in records
        ]

    def sign(self, records: Iterable[Record]) -> list[Record]:
        """Lineage and unit alone: rows of a series name their checkpoints themselves."""
        return [replace(record, lineage=self.lineage, unit=self.unit) for record in records]
