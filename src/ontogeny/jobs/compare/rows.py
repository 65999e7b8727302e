"""Rows of stage × stage tables: a cell belongs to one stage and names the other in its coords."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ontogeny.records import Record
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
        lost = math.isnan(value)
        return Record(
            metric=metric,
            value=value,
            stage=stage,
            concept=self.concept,
            site=str(site) if site else None,
            layer=site.layer if site else None,
            position=self.position,
            method=self.method,
            control=control,
            split=self.split,
            low=math.nan if lost else ends[0],
            high=math.nan if lost else ends[1],
            n=0 if lost else n,
            seed=self.seed,
            note=reason if lost else note,
            coords={**({"other_stage": other} if other else {}), **(coords or {})},
        )
