"""Rows of stage × stage tables: each row belongs to one stage and names the other one in its coords."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.records import Record, make_record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import percentile_interval

IntervalEnds = tuple[float, float]
UNKNOWN_INTERVAL: IntervalEnds = (math.nan, math.nan)


@dataclass(frozen=True)
class StageRowBuilder:
    """Builds the rows of one table, which share these columns."""

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


def interval_ends(
    point: float | Float[Tensor, ""],
    samples: Float[Tensor, " sample"],
    *,
    groups: int,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> IntervalEnds:
    """95 % bootstrap interval of a number from its resamples; `within` is the range of the metric."""
    point = point if isinstance(point, Tensor) else torch.tensor(point, dtype=torch.float64)
    interval = percentile_interval(point, samples, groups=groups)
    return max(float(interval.low), within[0]), min(float(interval.high), within[1])
