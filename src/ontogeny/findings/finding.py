"""What the table says about each concept: its score at its best site, its floors, and when it was learned, used and lost.

Report, terminal summary and views read these, so that a number in a sentence is the number in the picture.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ontogeny.findings.table import (
    ConceptRecords,
    best_site_rows,
    coord_column,
    mean_over_seeds,
    records_by_concept,
    select_rows,
    tidy_records,
)
from ontogeny.findings.timeline import Timeline, make_timeline

SCORE_METRICS = ("auroc", "r2", "accuracy")
"""Metrics that can stand for 'readable', the first that a concept has wins."""
PREFERRED_PROBES = ("logistic", "ridge", "mass_mean")
FLOOR_LABELS: Mapping[str, str] = {
    "surface_tfidf": "TF-IDF",
    "surface_length": "text length",
    "surface_casing": "casing",
    "control_task": "control task",
    "untrained": "untrained model",
    "random_direction": "random directions",
}
"""Controls of a score, and what people call them."""
_BEHAVIOUR_METRICS = ("answer_accuracy", "answer_margin")
CHANCE_SCORES: Mapping[str, float] = {"auroc": 0.5, "r2": 0.0, "accuracy": 0.5}
PREFERRED_KERNELS = ("gaussian_50", "gaussian_median", "imq", "linear")
"""Kernels of the dependence; the first that a concept has is drawn and spoken of."""


@dataclass(frozen=True)
class IntervalEstimate:
    """One number with its interval; NaN with a reason where it could not be measured."""

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    note: str = ""

    @property
    def known(self) -> bool:
        return not math.isnan(self.value)


@dataclass(frozen=True)
class StepEstimate:
    """A step at which something happened, with its interval; NaN with a reason where it is censored."""

    step: float
    low: float
    high: float
    stage: str
    site: str
    note: str

    @property
    def known(self) -> bool:
        return not math.isnan(self.step)


@dataclass(frozen=True)
class Finding:
    subject: ConceptRecords
    metric: str
    method: str
    site: str
    chosen_by: str
    """How the site was chosen: 'cv_score' (inside the training groups), or 'final score' where nothing better is known."""
    final: IntervalEstimate
    """Score at that site at the last checkpoint."""
    curve: pd.DataFrame
    """The score at that site over all checkpoints, in order."""
    floors: Mapping[str, IntervalEstimate]
    """At the same site and checkpoint where the floor has them; a random direction counts with its 97.5 % quantile."""
    control_task: IntervalEstimate | None
    """Accuracy on random labels, beside `accuracy` (which is what the control task is scored in)."""
    accuracy: IntervalEstimate | None
    emergence: StepEstimate | None
    loss: StepEstimate | None
    used: StepEstimate | None
    readable_minus_used: IntervalEstimate | None
    change_point: StepEstimate | None

    @property
    def name(self) -> str:
        return self.subject.name

    @property
    def after_loss(self) -> IntervalEstimate | None:
        """The score at the end of the stage in which it fell; None where no fall is known."""
        if self.loss is None or not self.loss.known:
            return None
        return _reading(self.curve[self.curve["stage"].isin([self.loss.stage or "", ""])].tail(1))

    @property
    def weakened(self) -> bool:
        """Whether it fell and is yet above chance, the surface and the untrained model: read less well, not lost."""
        left = self.after_loss
        outer = [f.value for c, f in self.floors.items() if c != "random_direction" and f.known]
        return left is not None and left.low > max([CHANCE_SCORES.get(self.metric, 0.5), *outer])


def collect_findings(records: pd.DataFrame, line: Timeline | None = None) -> list[Finding]:
    """One finding a concept (and lineage, and training seed) that has a score anywhere."""
    table = tidy_records(records)
    line = line or make_timeline(table)
    found = (_finding(subject, line) for subject in records_by_concept(table))
    return [finding for finding in found if finding is not None]


def _finding(subject: ConceptRecords, line: Timeline) -> Finding | None:
    rows = subject.rows
    scored = select_rows(rows, *SCORE_METRICS)
    scored = scored[scored["step"].notna()]
    if scored.empty:
        return None
    measured = scored[scored["value"].notna()] if scored["value"].notna().any() else scored
    metric = next(m for m in SCORE_METRICS if m in set(measured["metric"]))
    scored, measured = scored[scored["metric"].eq(metric)], measured[measured["metric"].eq(metric)]
    method = _preferred(measured["method"], PREFERRED_PROBES)
    scored = scored[scored["method"].eq(method)]
    site, chosen_by = _best_site(rows, scored, line)
    curve = mean_over_seeds(line.place(scored[scored["site"].eq(site)]), "site")
    return Finding(
        subject=subject,
        metric=metric,
        method=method,
        site=site,
        chosen_by=chosen_by,
        final=_reading(curve.tail(1)),
        curve=curve,
        floors=_floors(rows[rows["metric"].eq(metric)], site, method, line),
        control_task=_last_reading(rows[rows["control"].eq("control_task")], "accuracy", site, method, line),
        accuracy=_last_reading(rows[rows["control"].eq("")], "accuracy", site, method, line),
        emergence=_event(rows, "emergence_step", site, metric, line, (method,)),
        loss=_event(rows, "loss_step", site, metric, line, (method,)),
        used=_event(rows, "used_step", site, "", line),
        readable_minus_used=_readable_minus_used(rows, site, method, line),
        change_point=_event(rows, "change_point", site, "nhsic_tx", line, PREFERRED_KERNELS),
    )


def _preferred(names: pd.Series, order: tuple[str, ...]) -> str:
    present = list(dict.fromkeys(names))
    return next((name for name in order if name in present), present[0])


def _best_site(rows: pd.DataFrame, scored: pd.DataFrame, line: Timeline) -> tuple[str, str]:
    chosen = best_site_rows(rows)
    chosen = chosen[chosen["site"].isin(scored["site"])]
    if len(chosen):
        return str(chosen["site"].iloc[-1]), "cv_score"
    inner = select_rows(rows, "cv_score", train=True)
    inner = line.last(inner[inner["value"].notna() & inner["site"].isin(scored["site"])])
    if len(inner):
        return str(_highest_row(inner)["site"]), "cv_score"
    measured = scored[scored["value"].notna()]
    last = line.last(measured if len(measured) else scored)
    return str(_highest_row(last)["site"]), "final score"


def _highest_row(rows: pd.DataFrame) -> "pd.Series[Any]":
    """The row of the highest value; the first where none is known."""
    return rows.iloc[int(rows["value"].fillna(-math.inf).argmax())]


def _reading(row: pd.DataFrame) -> IntervalEstimate:
    if row.empty:
        return IntervalEstimate(math.nan, note="no row")
    one = row.iloc[0]
    n = 0 if math.isnan(one["n"]) else int(one["n"])
    return IntervalEstimate(float(one["value"]), float(one["low"]), float(one["high"]), n, one["note"])


def _last_reading(rows: pd.DataFrame, metric: str, site: str, method: str, line: Timeline) -> IntervalEstimate | None:
    own = rows[rows["metric"].eq(metric) & rows["site"].eq(site) & rows["method"].eq(method) & rows["value"].notna()]
    return _reading(line.last(own).tail(1)) if len(own) else None


def _floors(rows: pd.DataFrame, site: str, method: str, line: Timeline) -> dict[str, IntervalEstimate]:
    found = {}
    for control in FLOOR_LABELS:
        own = rows[rows["control"].eq(control) & rows["site"].isin([site, ""])]
        own = own[own["method"].eq(method)] if own["method"].eq(method).any() else own
        own = line.last(own) if own["step"].notna().any() else own
        if len(own):
            reading = _reading(own.tail(1))
            above = control == "random_direction" and not math.isnan(reading.high)
            found[control] = IntervalEstimate(reading.high, n=reading.n, note=reading.note) if above else reading
    return found


def _readable_minus_used(rows: pd.DataFrame, site: str, method: str, line: Timeline) -> IntervalEstimate | None:
    """Of the probe that is spoken of, in the stage in which both events are known."""
    event = _event(rows, "readable_minus_used", site, "", line, (method,))
    return None if event is None else IntervalEstimate(event.step, event.low, event.high, note=event.note)


def _event(
    rows: pd.DataFrame, metric: str, site: str, of: str, line: Timeline, methods: tuple[str, ...] = ()
) -> StepEstimate | None:
    """The event at the best site by the first of the methods in its half-way form, in the first stage that has it, else the nearest."""
    own = select_rows(rows, metric)
    if own.empty:
        return None
    method = next((m for m in methods if m in set(own["method"])), "")
    rank = {stage.name: i for i, stage in enumerate(line.stages)}
    own = own.sort_values("stage", key=lambda names: names.map(rank), kind="stable")
    told = coord_column(own, "of")
    fit = (
        16 * own["site"].isin([site, ""]).astype(int)
        + 8 * told.isin([of, ""]).astype(int)
        + 4 * own["method"].isin([method, ""]).astype(int)
        + 2 * coord_column(own, "form").isin(["half", ""]).astype(int)
        + own["value"].notna().astype(int)
    )
    one = own.iloc[int(fit.argmax())]
    step, low, high = (float(one[c]) for c in ("value", "low", "high"))
    return StepEstimate(step, low, high, one["stage"], one["site"], one["note"])
