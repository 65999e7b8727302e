"""Quantities and events of a study: curves over training steps, one per seed, and the step at which something happens."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps in ascending order, and the values at these steps."""


@dataclass(frozen=True)
class Quantity:
    """Rows of a study that form one curve per seed: a metric under one condition."""

    metric: str
    condition: str | None = None
    """The `stage` column; None: any."""
    control: str | None = None
    """The `control` column; None: the measurement itself."""
    coords: Mapping[str, str] = field(default_factory=dict)

    def under(self, control: str) -> "Quantity":
        """The same quantity of a null run."""
        return replace(self, control=control)

    def rows(self, records: pd.DataFrame) -> pd.DataFrame:
        """The measured rows, by seed and step."""
        rows = records[records["metric"].eq(self.metric) & records["value"].notna()]
        rows = rows[rows["control"].isna() if self.control is None else rows["control"].eq(self.control)]
        if self.condition is not None:
            rows = rows[rows["stage"].eq(self.condition)]
        if self.coords:
            rows = rows.loc[[all(dict(c).get(k) == v for k, v in self.coords.items()) for c in rows["coords"]]]
        return rows.sort_values(["train_seed", "step"])

    def curves(self, records: pd.DataFrame) -> dict[int, Curve]:
        """The curve of each seed; several rows of a step are averaged."""
        rows = self.rows(records)
        rows = rows[rows["step"].notna()]
        curves: dict[int, Curve] = {}
        for seed, own in rows.groupby("train_seed", sort=True):
            mean = own.groupby("step", sort=True)["value"].mean()
            curves[int(str(seed))] = (mean.index.to_numpy(dtype=np.float64), mean.to_numpy(dtype=np.float64))
        return curves

    def final_values(self, records: pd.DataFrame) -> dict[int, float]:
        """The value of each seed at its last step, or its only value."""
        values: dict[int, float] = {}
        for seed, own in self.rows(records).groupby("train_seed", sort=True):
            last = own if own["step"].isna().all() else own[own["step"].eq(own["step"].max())]
            values[int(str(seed))] = float(last["value"].mean())
        return values


@dataclass(frozen=True)
class Event:
    """The first step at which a curve reaches a level and keeps it for `hold` measured steps."""

    quantity: Quantity
    level: float
    direction: Literal["rise", "fall"] = "rise"
    relative: bool = False
    """Whether the level is a share of the way from the first value of the curve to its last one."""
    hold: int = 1

    def under(self, control: str) -> "Event":
        return replace(self, quantity=self.quantity.under(control))

    def steps(self, records: pd.DataFrame) -> dict[int, tuple[float, float]]:
        """By seed: the step of the event, infinite if it does not happen, and the last measured step."""
        curves = self.quantity.curves(records)
        return {seed: (self.step(curve), float(curve[0][-1])) for seed, curve in curves.items()}

    def step(self, curve: Curve) -> float:
        """The step of the event in one curve; infinite if it does not happen."""
        steps, values = curve
        level, sign = self.level, 1 if self.direction == "rise" else -1
        if self.relative:
            level, sign = values[0] + self.level * (values[-1] - values[0]), 1 if values[-1] >= values[0] else -1
        above = sign * values >= sign * level
        return float(steps[first]) if (first := _first_run(above, self.hold)) is not None else math.inf


def _first_run(inside: NDArray[np.bool_], hold: int) -> int | None:
    """Start of the first run of `hold` true values; at the end of a curve a shorter run counts."""
    for start in np.flatnonzero(inside):
        if inside[start : start + hold].all():
            return int(start)
    return None
