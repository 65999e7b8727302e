"""Developmental order: all stages on one time axis, one after another, with the steps inside each.

Steps restart in every stage, so a step alone does not order checkpoints. Inside a stage, time is log2(step + 1) if the steps span
two orders of magnitude or their gaps grow, else the step.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

_STAGE_GAP = 0.35
"""Gap between two stages, in the unit of a stage's width."""
LOSS_METRICS = ("train_loss", "eval_loss")
"""Losses that the trainer logged, also between checkpoints."""
EVENT_METRICS = (
    *("emergence_step", "loss_step", "used_step", "change_point", "readable_minus_used"),
    *LOSS_METRICS,
)
SERIES_METRICS = (*EVENT_METRICS, "best_site", "dependence_within_accuracy", "stage_effect")
"""Metrics of a whole series: the checkpoint columns of their rows need not name a measured checkpoint."""


def numeric_steps(records: pd.DataFrame) -> "pd.Series[float]":
    """The steps as numbers; a checkpoint without a number (a released final model) is half a step after the last of its stage."""
    step = pd.to_numeric(records["step"], errors="coerce").astype("float64")
    stage = records["stage"] if "stage" in records else pd.Series("", index=records.index)
    bare = step.isna() & stage.notna() & stage.ne("")
    if "metric" in records:
        bare &= ~records["metric"].isin(SERIES_METRICS)
    if not bare.any():
        return step
    last = step.groupby(stage).max()
    return step.where(~bare, stage.map(last).astype("float64").fillna(0.0) + 0.5)


@dataclass(frozen=True)
class StageSpan:
    """A stage on the time axis."""

    name: str
    steps: tuple[float, ...]
    start: float
    """Age at its first step."""
    width: float
    log: bool

    def age(self, step: float) -> float:
        """Position of a step on the common axis, also between two measured steps."""
        first, last = self._time(self.steps[0]), self._time(self.steps[-1])
        share = (self._time(step) - first) / (last - first) if last > first else 0.0
        return self.start + self.width * share

    def _time(self, step: float) -> float:
        return math.log2(max(step, 0) + 1) if self.log else step


@dataclass(frozen=True)
class Timeline:
    """All checkpoints of a table on one axis; an `age` is a position on it."""

    stages: tuple[StageSpan, ...]
    moments: pd.DataFrame
    """The checkpoints in order: stage, step, tokens, age, and the edges of the cell, age_low to age_high."""

    def age(self, stage: str, step: float) -> float:
        """Age of a step, NaN for NaN; without a known stage, in the first stage that reaches the step."""
        if math.isnan(step) or not self.stages:
            return math.nan
        named = [s for s in self.stages if s.name == stage] or [s for s in self.stages if s.steps[-1] >= step]
        return (named or self.stages)[0].age(step)

    def numbered_steps(self, stages: pd.Series, steps: pd.Series) -> "pd.Series[float]":
        """Steps as this axis numbers them, those of coordinates too: a checkpoint without a number is the end of its stage."""
        ends = self.moments[self.moments["step"].mod(1).ne(0)].set_index("stage")["step"]
        known = pd.to_numeric(steps, errors="coerce").astype("float64")
        return known.fillna(stages.map(ends).astype("float64"))

    def place(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows with a step, in developmental order, with their age, age_low and age_high."""
        return self._place(rows, only_last=False)

    def _place(self, rows: pd.DataFrame, *, only_last: bool) -> pd.DataFrame:
        # Lookups and one selection in the place of a merge: a report places thousands of short curves.
        row_of = self._row_of
        at = np.array([row_of.get(key, -1) for key in zip(rows["stage"], rows["step"], strict=True)], dtype=np.int64)
        known = np.flatnonzero(at >= 0)
        age = self.moments["age"].to_numpy()[at[known]]
        order = np.flatnonzero(age == age.max()) if only_last and len(age) else np.argsort(age, kind="stable")
        placed = rows.iloc[known[order]].set_axis(order, axis=0)
        columns = ("age", "age_low", "age_high")
        return placed.assign(**{name: self.moments[name].to_numpy()[at[known[order]]] for name in columns})

    @functools.cached_property
    def _row_of(self) -> dict[tuple[str, float], int]:
        """The row of each checkpoint in `moments`, by stage and step."""
        return {key: i for i, key in enumerate(zip(self.moments["stage"], self.moments["step"], strict=True))}

    def last(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows of the last checkpoint among them."""
        return self._place(rows, only_last=True)

    def among(self, checkpoints: pd.DataFrame) -> "Timeline":
        """The same axis with fewer checkpoints (columns stage and step), whose cells have no gaps between them."""
        key = frozenset(self._row_of.keys() & zip(checkpoints["stage"], checkpoints["step"], strict=True))
        if key not in self._parts:
            at = sorted(self._row_of[checkpoint] for checkpoint in key)
            kept = self.moments.iloc[at].reset_index(drop=True)
            cells = [_with_edges(own, self._span(str(name)).width) for name, own in kept.groupby("stage", sort=False)]
            self._parts[key] = Timeline(self.stages, pd.concat(cells, ignore_index=True) if cells else kept)
        return self._parts[key]

    @functools.cached_property
    def _parts(self) -> "dict[frozenset[Any], Timeline]":
        """Axes of `among`: the concepts of a run mostly have the same checkpoints."""
        return {}

    @functools.cached_property
    def stage_edges(self) -> dict[str, tuple[float, float]]:
        """By stage, the edges of its first and of its last cell."""
        stages = self.moments.groupby("stage", sort=False)
        return {str(name): (float(own["age_low"].min()), float(own["age_high"].max())) for name, own in stages}

    def thin(self, series: pd.DataFrame, most: int) -> pd.DataFrame:
        """About `most` checkpoints of a series (columns stage, step, value), with its extremes.

        The axis is cut into `most / 2` equal parts, and each gives the checkpoints with its lowest and its highest value;
        the first and the last checkpoint of each stage stay.
        """
        placed = self.place(series)
        if len(placed) <= most or not self.stages:
            return placed
        part = (placed["age"] / (self.stages[-1].start + self.stages[-1].width or 1.0) * (most // 2)).astype(int)
        value = placed["value"].fillna(placed["value"].mean() if placed["value"].notna().any() else 0.0)
        by_part, by_stage = value.groupby(part), placed.groupby("stage")["age"]
        rows = {*by_part.idxmin(), *by_part.idxmax(), *by_stage.idxmin(), *by_stage.idxmax()}
        return placed.loc[[row for row in placed.index if row in rows]]

    def _span(self, name: str) -> StageSpan:
        return next(stage for stage in self.stages if stage.name == name)

    def ticks(self, count: int) -> pd.DataFrame:
        """About `count` checkpoints, far enough apart for labels; the ends of each stage have priority."""
        if count not in self._ticks:
            self._ticks[count] = self._choose_ticks(count)
        return self._ticks[count]

    @functools.cached_property
    def _ticks(self) -> dict[int, pd.DataFrame]:
        """By their number: dozens of panels have the same."""
        return {}

    def _choose_ticks(self, count: int) -> pd.DataFrame:
        if not self.stages:
            return self.moments
        end = self.stages[-1].start + self.stages[-1].width
        room = (end - self.stages[0].start) / max(count, 1)
        chosen: list[int] = []
        ages = self.moments["age"].tolist()
        for row in _by_importance(self.moments):
            if all(abs(ages[row] - ages[other]) >= room for other in chosen):
                chosen.append(row)
        return self.moments.iloc[sorted(chosen)]


def make_timeline(records: pd.DataFrame) -> Timeline:
    """The timeline of a table: stages by the column `order` if there is one, else by tokens, then by appearance.

    Pass the whole table: a selection may name the stages in another order.
    """
    if "metric" in records:
        records = records[~records["metric"].isin(EVENT_METRICS)]
    records = records.assign(step=numeric_steps(records))
    columns = [name for name in ("stage", "step", "tokens", "order") if name in records]
    checkpoints = (
        records[columns].drop_duplicates().reindex(columns=list(dict.fromkeys(["stage", "step", "tokens", *columns])))
    )
    numbers = {
        str(c): pd.to_numeric(checkpoints[c], errors="coerce").astype("float64") for c in checkpoints if c != "stage"
    }
    checkpoints = checkpoints.assign(
        stage=checkpoints["stage"].astype(object).where(checkpoints["stage"].notna(), "").astype(str), **numbers
    )
    checkpoints = checkpoints[checkpoints["step"].notna()].groupby(["stage", "step"], sort=False).first().reset_index()
    key = "order" if "order" in checkpoints else "tokens"
    start_of = checkpoints.groupby("stage", sort=False)[key].min()
    if start_of.notna().all():
        checkpoints = checkpoints.sort_values("stage", key=lambda names: names.map(start_of), kind="stable")
    stages: list[StageSpan] = []
    start = 0.0
    for name in checkpoints["stage"].unique():
        steps = tuple(sorted(checkpoints.loc[checkpoints["stage"].eq(name), "step"]))
        width = math.sqrt(len(steps)) if len(steps) > 1 else 0.0
        stages.append(StageSpan(name, steps, start, width, _spans_decades(steps)))
        start += max(width, _STAGE_GAP) + _STAGE_GAP
    moments = [_stage_moments(stage, checkpoints[checkpoints["stage"].eq(stage.name)]) for stage in stages]
    numbers_of = ("step", "tokens", "age", "age_low", "age_high")
    empty = pd.DataFrame({"stage": pd.Series(dtype=object), **{name: pd.Series(dtype=float) for name in numbers_of}})
    return Timeline(tuple(stages), pd.concat(moments, ignore_index=True) if moments else empty)


def _spans_decades(steps: tuple[float, ...]) -> bool:
    """Whether steps span two orders of magnitude, or their gaps grow as on a log scale."""
    positive = [step for step in steps if step > 0]
    gaps = [b - a for a, b in itertools.pairwise(positive)]
    return len(positive) > 2 and (positive[-1] / positive[0] >= 100 or gaps[-1] / gaps[0] >= 4)


def _stage_moments(stage: StageSpan, checkpoints: pd.DataFrame) -> pd.DataFrame:
    frame = checkpoints.sort_values("step")[["stage", "step", "tokens"]].reset_index(drop=True)
    return _with_edges(frame.assign(age=[stage.age(step) for step in frame["step"]]), stage.width)


def _with_edges(moments: pd.DataFrame, width: float) -> pd.DataFrame:
    """The checkpoints of a stage with the edges of their cells; `width` is that of the stage."""
    age = moments["age"].to_numpy()
    between = (age[1:] + age[:-1]) / 2
    first, last = (between[0] - age[0], age[-1] - between[-1]) if len(age) > 1 else (_STAGE_GAP / 2, _STAGE_GAP / 2)
    # A late checkpoint of many is thin on a log axis: the last cell gets a minimum width.
    first, last = min(first, _STAGE_GAP / 2), min(max(last, 0.02 * width), _STAGE_GAP / 2)
    return moments.assign(age_low=[age[0] - first, *between], age_high=[*between, age[-1] + last])


def _by_importance(moments: pd.DataFrame) -> list[int]:
    """Rows by the importance of their labels: ends of stages, then evenly halved gaps."""
    ends = [i for _, rows in moments.groupby("stage", sort=False) for i in (rows.index[-1], rows.index[0])]
    inner: list[int] = []
    spans = [(rows.index[0], rows.index[-1]) for _, rows in moments.groupby("stage", sort=False)]
    ages = moments["age"].to_dict()
    while spans:
        halves = []
        for a, b in spans:
            if b - a > 1:
                target = (ages[a] + ages[b]) / 2
                middle = min(range(a + 1, b), key=lambda i: abs(ages[i] - target))
                inner.append(middle)
                halves += [(a, middle), (middle, b)]
        spans = halves
    return list(dict.fromkeys([*ends, *inner]))


def checkpoint_keys(records: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    """Stage and step of each row, "" and None where there is none, as the checkpoints of run.json are compared with them."""
    stages = records["stage"].astype(object).where(records["stage"].notna(), "")
    return zip(stages, records["step"].astype(object).where(records["step"].notna(), None), strict=True)


def order_like_run(records: pd.DataFrame, about: Mapping[str, Any]) -> pd.DataFrame:
    """The table with concepts in the order of run.json, and the order of its checkpoints, if known, in the column `order`."""
    named = {c.get("name"): i for i, c in enumerate(about.get("concepts", []))}
    if len(named) > 1:
        # Rows of other concepts follow in their order.
        records = records.sort_values("concept", key=lambda names: names.map(named).astype("float64"), kind="stable")
    checkpoints = about.get("lineage", {}).get("checkpoints", [])
    place = {(c.get("stage") or "", c.get("step")): i for i, c in enumerate(checkpoints)}
    order = pd.Series([place.get(key) for key in checkpoint_keys(records)], index=records.index, dtype="float64")
    known = order.notna() | records["step"].isna()
    if "metric" in records:
        known |= records["metric"].isin(LOSS_METRICS)
    return records.assign(order=order) if checkpoints and known.all() else records
