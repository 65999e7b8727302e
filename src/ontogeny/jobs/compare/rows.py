"""Rows of stage × stage tables: a cell belongs to one stage and names the other in its coords."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ontogeny.records import Record, make_record
from ontogeny.sites import Site

IntervalEnds = tuple[float, float]
UNKNOWN_INTERVAL: IntervalEnds = (math.nan, math.nan)


@dataclass(frozen=True)
class StageRowBuilder:
    """What the rows of one table have in common."""

    concept: str
    position: str
    method: str
    seed: int
    split: str | None = "test"

    def row(
        self,
        metric: str,
        value: float,
        stage: str,
        other: str | None = None,
        *,
        site: Site | None = None,
        ends: IntervalEnds = UNKNOWN_INTERVAL,
        n: int,
        control: str | None = None,
        note: str | None = None,
        coords: Mapping[str, str] | None = None,
        reason: str = "degenerate scores",
    ) -> Record:
        """One cell; `reason` is what a NaN gets as its note."""
        return make_record(
            metric,
            value,
            site=site,
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
            coords={**({"other_stage": other} if other else {}), **(coords or {})},
        )
