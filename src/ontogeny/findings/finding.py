"""Findings: each concept's score at its best site, its floors, and the steps of its events: emergence, loss, right answers.

Report, terminal summary and views read them, so that a number in a sentence is the number in the picture.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
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
"""Metrics of readability; the first that a concept has is used."""
PREFERRED_PROBES = ("logistic", "ridge", "mass_mean")
FLOOR_LABELS: Mapping[str, str] = {
    "surface_tfidf": "TF-IDF",
    "surface_length": "text length",
    "surface_casing": "casing",
    "control_task": "control task",
    "untrained": "untrained model",
    "random_direction": "random directions",
}
"""Controls of a score and their names."""
_ONE_DIRECTION = "the best of"
"""Beginning of the note of a random direction that was chosen on the training groups."""
_BEHAVIOUR_METRICS = ("answer_accuracy", "answer_margin")
CHANCE_SCORES: Mapping[str, float] = {"auroc": 0.5, "r2": 0.0, "accuracy": 0.5}
PREFERRED_KERNELS = ("gaussian_50", "gaussian_median", "imq", "linear")
"""Kernels of the dependence; the first that a concept has is used."""


_LEVEL, _NEAR = 0.05, 2.5
"""Level of the tests of events, and the factor within which p moves from one draw of the examples to the next."""


@dataclass(frozen=True)
class IntervalEstimate:
    """A value with its interval; NaN with a reason if it could not be measured."""

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
    """The step of an event, with its interval; NaN with a reason if it is censored."""

    step: float
    low: float
    high: float
    stage: str
    site: str
    note: str
    p: float = math.nan
    """Corrected for `looks`; NaN in runs made before the correction."""
    looks: int = 0
    folds: int = 0
    """Parts of the groups that were held out in turn; 0 with a single split."""
    folds_agree: int = 0
    """How many of them show the event's difference with the same sign."""

    @property
    def known(self) -> bool:
        return not math.isnan(self.step)

    @property
    def folds_disagree(self) -> bool:
        """Whether the sign of the event's difference depends on the groups that are held out."""
        return self.known and self.folds_agree < self.folds

    @property
    def near_level(self) -> bool:
        """Whether p is so near to .05 that other examples may decide otherwise, whichever way it was decided."""
        return _LEVEL / _NEAR <= self.p <= _LEVEL * _NEAR


@dataclass(frozen=True)
class StageSites:
    """Where a concept is read at the end of a stage."""

    stage: str
    best: str
    """The site with the best cross-validated score there."""
    earliest: str
    """The lowest layer of the residual stream at family-wise p ≤ .05 over layers and stages; '' if none."""


@dataclass(frozen=True)
class AblationEffect:
    """Change of the answers when the concept's direction is ablated, beside the same change along random directions."""

    effect: IntervalEstimate
    """Mean change of the margin of the right answer, nats."""
    null: IntervalEstimate
    """Of random directions: mean, and 95 % of them."""
    p: float
    """Corrected over the ablations, or the evaluated effects, of the run."""
    stage: str
    step: float
    of: str = "right answers"
    """The answers whose margin changed: an evaluation looks at those that show the concept."""

    @property
    def is_use(self) -> bool:
        """Whether the answers get worse by more than along random directions."""
        return self.p <= 0.05 and self.effect.high < 0


@dataclass(frozen=True, eq=False)
class Finding:
    """The readings of one concept in one lineage and training seed; each is looked up when it is asked for."""

    subject: ConceptRecords
    line: Timeline
    metric: str
    method: str
    site: str
    chosen_by: str
    """Criterion for the site: 'cv_score' (inside the training groups), or 'final score' without one."""
    curve: pd.DataFrame
    """The score at that site over all checkpoints, in order."""

    @cached_property
    def final(self) -> IntervalEstimate:
        """Score at that site at the last checkpoint."""
        return first_interval(self.curve.tail(1))

    @cached_property
    def floors(self) -> Mapping[str, IntervalEstimate]:
        """At the same site and checkpoint if the floor has them; for random directions of a single split their 97.5 % quantile."""
        return _floors(_of_metric(self.subject.rows, self.metric), self.site, self.method, self.line)

    @cached_property
    def event_floors(self) -> Mapping[str, IntervalEstimate]:
        """The floors at the end of the stage of the emergence."""
        return _floors(_of_metric(self._until_emergence, self.metric), self.site, self.method, self.line)

    @cached_property
    def excess(self) -> Mapping[str, IntervalEstimate]:
        """By floor: the score minus that of the floor on the same examples, at the last checkpoint; empty in runs of a single split."""
        return _excess(_of_metric(self.subject.rows, f"{self.metric}_excess"), self.site, self.method, self.line)

    @cached_property
    def accuracy(self) -> IntervalEstimate | None:
        return self._last_accuracy("")

    @cached_property
    def control_task(self) -> IntervalEstimate | None:
        """Accuracy on random labels, to compare with `accuracy`."""
        return self._last_accuracy("control_task")

    def _last_accuracy(self, control: str) -> IntervalEstimate | None:
        rows = _of_metric(self.subject.rows, "accuracy")
        own = rows[rows["control"].eq(control) & rows["site"].eq(self.site) & rows["method"].eq(self.method)]
        own = own[own["value"].notna()]
        return first_interval(self.line.last(own).tail(1)) if len(own) else None

    @property
    def selectivity(self) -> IntervalEstimate | None:
        """Accuracy above that on random labels, at the end of the stage of the emergence; None unless word types predict the label."""
        return self._selectivity[0]

    @property
    def type_accuracy(self) -> float:
        """How well word types alone tell the label there."""
        return self._selectivity[1]

    @cached_property
    def _selectivity(self) -> tuple[IntervalEstimate | None, float]:
        return _selectivity(self._until_emergence, self.site, self.method, self.line)

    @cached_property
    def _until_emergence(self) -> pd.DataFrame:
        """Rows of the stage in which the concept emerges, and rows without a stage; without an emergence, all rows."""
        rows, emergence = self.subject.rows, self.emergence
        return rows[rows["stage"].isin([emergence.stage, ""])] if emergence is not None and emergence.stage else rows

    @cached_property
    def emergence(self) -> StepEstimate | None:
        return _event(self.subject.rows, "emergence_step", self.site, self.metric, self.line, (self.method,))

    @cached_property
    def loss(self) -> StepEstimate | None:
        return _event(self.subject.rows, "loss_step", self.site, self.metric, self.line, (self.method,))

    @cached_property
    def answers(self) -> StepEstimate | None:
        """The step from which the questions are answered right."""
        return _event(self.subject.rows, "used_step", self.site, "", self.line)

    @cached_property
    def readable_minus_answers(self) -> IntervalEstimate | None:
        """In doublings, by the preferred probe in the stage with both events; NaN where the questions do not begin with the read texts."""
        event = _event(self.subject.rows, "readable_minus_used", self.site, "", self.line, (self.method,))
        return None if event is None else IntervalEstimate(event.step, event.low, event.high, note=event.note)

    @cached_property
    def change_point(self) -> StepEstimate | None:
        return _event(self.subject.rows, "change_point", self.site, "nhsic_tx", self.line, PREFERRED_KERNELS)

    @cached_property
    def ablation(self) -> AblationEffect | None:
        """At the last checkpoint where it was measured."""
        return _ablation(self.subject.rows, self.line)

    @cached_property
    def stage_sites(self) -> tuple[StageSites, ...]:
        """By stage, in order; empty in runs that did not measure them."""
        return _stage_sites(self.subject.rows, self.line)

    @property
    def name(self) -> str:
        return self.subject.name

    def score_after(self, stage: str) -> IntervalEstimate:
        """The score at the end of a stage."""
        return first_interval(self.curve[self.curve["stage"].isin([stage, ""])].tail(1))

    def exceeds(self, control: str) -> bool:
        """Whether the last score is above this floor: by the paired difference if there is one, else by the score's own interval."""
        if control in self.excess:
            return self.excess[control].low > 0
        return self.final.low > self.floors[control].value

    @property
    def after_loss(self) -> IntervalEstimate | None:
        """The score at the end of the stage in which it fell; None without a loss."""
        return None if self.loss is None or not self.loss.known else self.score_after(self.loss.stage)

    @property
    def highest_floor(self) -> float:
        """The highest of chance, the surface and the untrained model."""
        floors = [f.value for c, f in self.floors.items() if c != "random_direction" and f.known]
        return max([CHANCE_SCORES.get(self.metric, 0.5), *floors])

    @property
    def read_at_end(self) -> bool:
        """Whether the interval of the final score is above chance, the surface and the untrained model."""
        return self.final.low > self.highest_floor

    @property
    def last_read(self) -> "pd.Series[Any] | None":
        """The row of the last checkpoint at which the site's interval was above them; None if there is none."""
        read = self.curve[self.curve["low"].gt(self.highest_floor)]
        return None if read.empty else read.iloc[-1]

    @property
    def weakened(self) -> bool:
        """Whether it fell but stays above its floors: weakened, not lost."""
        score = self.after_loss
        return score is not None and score.low > self.highest_floor

    @property
    def lost(self) -> bool:
        """Whether it fell so far that its interval ends below half-way between its floors and its peak."""
        score = self.after_loss
        if score is None or self.weakened:
            return False
        return score.high < (self.highest_floor + float(self.curve["value"].max())) / 2


def collect_findings(records: pd.DataFrame, line: Timeline | None = None) -> list[Finding]:
    """One finding per concept, lineage and training seed with a score."""
    table = tidy_records(records)
    line = line or make_timeline(table)
    findings = (_finding(subject, line) for subject in records_by_concept(table))
    return [finding for finding in findings if finding is not None]


def _finding(subject: ConceptRecords, line: Timeline) -> Finding | None:
    rows = subject.rows
    scored = select_rows(rows, *SCORE_METRICS)
    scored = scored[scored["step"].notna()]
    if scored.empty:
        return None
    measured = scored[scored["value"].notna()] if scored["value"].notna().any() else scored
    metric = next(m for m in SCORE_METRICS if m in set(measured["metric"]))
    scored, measured = scored[scored["metric"].eq(metric)], measured[measured["metric"].eq(metric)]
    method = preferred_name(measured["method"], PREFERRED_PROBES)
    scored = scored[scored["method"].eq(method)]
    site, chosen_by = _best_site(rows, scored, line)
    curve = mean_over_seeds(line.place(scored[scored["site"].eq(site)]), "site")
    return Finding(subject, line, metric, method, site, chosen_by, curve)


def _of_metric(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    return rows[rows["metric"].eq(metric)]


def _stage_sites(rows: pd.DataFrame, line: Timeline) -> tuple[StageSites, ...]:
    """Best and earliest site at the end of each stage that has both rows."""
    best, earliest = (_of_metric(rows, metric) for metric in ("stage_best_site", "earliest_site"))
    sites = []
    for stage in line.stages:
        own_best, own_earliest = (of[of["stage"].eq(stage.name)] for of in (best, earliest))
        if len(own_best) and len(own_earliest):
            row = own_earliest.iloc[-1]
            first = "" if math.isnan(row["value"]) else str(row["site"])
            sites.append(StageSites(stage.name, str(own_best["site"].iloc[-1]), first))
    return tuple(sites)


def preferred_name(names: pd.Series, order: tuple[str, ...]) -> str:
    """The first name in `order` that is present, else the first present."""
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
    """The row with the highest value; the first if all are NaN."""
    return rows.iloc[int(rows["value"].fillna(-math.inf).argmax())]


def first_interval(rows: pd.DataFrame) -> IntervalEstimate:
    """Value and interval of the first row."""
    if rows.empty:
        return IntervalEstimate(math.nan, note="no row")
    row = rows.iloc[0]
    n = 0 if math.isnan(row["n"]) else int(row["n"])
    return IntervalEstimate(float(row["value"]), float(row["low"]), float(row["high"]), n, str(row["note"]))


def _floors(rows: pd.DataFrame, site: str, method: str, line: Timeline) -> dict[str, IntervalEstimate]:
    floors = {}
    rows = rows[rows["control"].isin(FLOOR_LABELS) & rows["site"].isin([site, ""])]
    for control in FLOOR_LABELS:
        own = rows[rows["control"].eq(control)]
        own = own[own["method"].eq(method)] if own["method"].eq(method).any() else own
        own = line.last(own) if own["step"].notna().any() else own
        if len(own):
            reading = first_interval(own.tail(1))
            # Many directions give their 97.5 % quantile; one that was chosen on train has an interval of its own.
            many = control == "random_direction" and not reading.note.startswith(_ONE_DIRECTION)
            above = many and not math.isnan(reading.high)
            floors[control] = IntervalEstimate(reading.high, n=reading.n, note=reading.note) if above else reading
    return floors


def _excess(rows: pd.DataFrame, site: str, method: str, line: Timeline) -> dict[str, IntervalEstimate]:
    """The last difference to each floor."""
    own = rows[rows["site"].eq(site) & rows["method"].eq(method) & rows["value"].notna()]
    return {str(control): first_interval(line.last(of).tail(1)) for control, of in own.groupby("control", sort=False)}


def _selectivity(rows: pd.DataFrame, site: str, method: str, line: Timeline) -> tuple[IntervalEstimate | None, float]:
    """The last selectivity and the accuracy of word types, if these predict the label."""
    own = select_rows(rows, "selectivity")
    own = own[own["site"].eq(site) & own["method"].eq(method) & own["value"].notna()]
    if own.empty or coord_column(own := line.last(own), "types_predict").iloc[-1] != "true":
        return None, math.nan
    return first_interval(own.tail(1)), float(coord_column(own, "type_accuracy").iloc[-1])


def _ablation(rows: pd.DataFrame, line: Timeline) -> AblationEffect | None:
    """The effect of ablating the direction on the answers, at the last checkpoint where it was measured."""
    own = rows[rows["metric"].isin(["ablation_effect", "ablation_p_corrected"]) & rows["value"].notna()]
    if own.empty:
        return _evaluated_ablation(rows, line)
    own = line.last(own)
    effects = own[own["metric"].eq("ablation_effect")]
    null, effect = effects[effects["control"].eq("random_direction")], effects[effects["control"].eq("")]
    p = own[own["metric"].eq("ablation_p_corrected")]["value"]
    if effect.empty or null.empty or p.empty:
        return None
    stage, step = str(effect["stage"].iloc[0]), float(effect["step"].iloc[0])
    return AblationEffect(first_interval(effect), first_interval(null), float(p.iloc[0]), stage, step)


def _evaluated_ablation(rows: pd.DataFrame, line: Timeline) -> AblationEffect | None:
    """The same from an evaluation of the method `ablate`, if the run holds one."""
    own = rows[rows["metric"].isin(["steering_effect", "steering_q"]) & rows["method"].eq("ablate")]
    own = own[own["value"].notna() & own["split"].eq("test") & coord_column(own, "alpha").ne("0")]
    if own.empty:
        return None
    own = line.last(own)
    effects = own[own["metric"].eq("steering_effect")]
    null, effect = effects[effects["control"].eq("random_direction")], effects[effects["control"].eq("")]
    q = own[own["metric"].eq("steering_q")]["value"]
    if effect.empty or null.empty or q.empty:
        return None
    stage, step = str(effect["stage"].iloc[0]), float(effect["step"].iloc[0])
    answers = "answers that show it"
    return AblationEffect(first_interval(effect), first_interval(null), float(q.iloc[0]), stage, step, answers)


def _event(
    rows: pd.DataFrame, metric: str, site: str, of: str, line: Timeline, methods: tuple[str, ...] = ()
) -> StepEstimate | None:
    """The best match: at the site, of the metric, by the method, in half-way form, known, in this order; early stages first."""
    own = select_rows(rows, metric)
    if own.empty:
        return None
    method = next((m for m in methods if m in set(own["method"])), "")
    rank = {stage.name: i for i, stage in enumerate(line.stages)}
    own = own.sort_values("stage", key=lambda names: names.map(rank), kind="stable")
    rank_of_match = (
        16 * own["site"].isin([site, ""]).astype(int)
        + 8 * coord_column(own, "of").isin([of, ""]).astype(int)
        + 4 * own["method"].isin([method, ""]).astype(int)
        + 2 * coord_column(own, "form").isin(["half", ""]).astype(int)
        + own["value"].notna().astype(int)
    )
    row = own.iloc[int(rank_of_match.argmax())]
    step, low, high = (float(row[c]) for c in ("value", "low", "high"))
    coords = row["coords"]
    p = float(coords.get("p_corrected", math.nan))
    counts = [int(coords.get(key, 0)) for key in ("looks", "folds", "folds_agree")]
    return StepEstimate(step, low, high, row["stage"], row["site"], row["note"], p, *counts)
