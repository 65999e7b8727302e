"""Records from tensors over sites: one record per site."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ontogeny.lineage import Checkpoint
from ontogeny.records import DATA_SHARE, Record, make_record, stamp_checkpoint
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import Interval
from ontogeny.storage.files import RecordBlock


@dataclass(frozen=True)
class RowContext:
    """Columns shared by all records of one measurement."""

    concept: str
    position: str
    n: int
    """Number of examples."""
    seed: int
    split: str | None = "test"

    def row(self, metric: str, value: float, site: Site | None, *, n: int | None = None, **columns: Any) -> Record:
        """One record, see `make_record`; `n` is that of the context if None."""
        shared = {"concept": self.concept, "position": self.position, "split": self.split, "seed": self.seed}
        return make_record(metric, value, site=site, n=self.n if n is None else n, **(shared | columns))


def site_rows(
    about: RowContext,
    metric: str,
    values: Float[Tensor, " site"],
    sites: Sequence[Site],
    *,
    interval: Interval | None = None,
    reason: str = "degenerate scores",
    **columns: Any,
) -> list[Record]:
    """One record per site; `reason` is the note of a NaN, `columns` are further columns of `Record`."""
    unknown = [math.nan] * len(sites)
    lows, highs = (interval.low.tolist(), interval.high.tolist()) if interval else (unknown, unknown)
    return [
        about.row(metric, value, site, interval=(low, high), reason=reason, **columns)
        for site, value, low, high in zip(sites, values.tolist(), lows, highs, strict=True)
    ]


@dataclass(frozen=True)
class CheckpointStamp:
    """Columns of a checkpoint and of the unit that wrote its records."""

    lineage: str
    unit: str
    stage: str | None = None
    step: int | None = None
    tokens: float | None = None
    revision: str | None = None
    train_seed: int | None = None
    data_share: float | None = None

    @classmethod
    def of(cls, lineage: str, unit: str, checkpoint: Checkpoint) -> "CheckpointStamp":
        """The stamp of one checkpoint; `revision` is the name of a checkpoint without a revision, such as a local folder."""
        c = checkpoint
        return cls(lineage, unit, c.stage, c.step, c.tokens, c.name, c.train_seed, c.data_share)

    def on(self, records: Iterable[Record]) -> list[Record]:
        """Records with all columns of the stamp."""
        signed = [replace(record, lineage=self.lineage, unit=self.unit) for record in stamp_checkpoint(records, self)]
        if self.data_share is None:
            return signed
        own = {DATA_SHARE: f"{self.data_share:g}"}
        return [replace(record, coords={**record.coords, **own}) for record in signed]

    def sign(self, records: Iterable[Record | RecordBlock]) -> Iterator[Record | RecordBlock]:
        """Records with lineage and unit only; those of a summary name their checkpoints themselves."""
        own = {"lineage": self.lineage, "unit": self.unit}
        for record in records:
            if isinstance(record, RecordBlock):
                yield replace(record, columns={**record.columns, **own})
            else:
                yield replace(record, lineage=self.lineage, unit=self.unit)
