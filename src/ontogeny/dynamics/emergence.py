"""Emergence and loss of a concept, and the step from which its questions are answered right: events of its curves at its best site.

The events of one kind are corrected together over the stages and concepts of a run (`statistics.emergence.correct_events`).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint, common_methods
from ontogeny.measurements import scores
from ontogeny.measurements.behaviour import answer_groups, questions_begin_with_texts
from ontogeny.measurements.cross_fitted_scores import CrossFittedScores
from ontogeny.measurements.design import Design
from ontogeny.records import Record, stamp_checkpoint
from ontogeny.statistics import bootstrap
from ontogeny.statistics.emergence import (
    EmergenceEvent,
    EventDifference,
    ThresholdForm,
    correct_events,
    emergence_event,
    loss_event,
    step_difference,
)
from ontogeny.statistics.permutation import least_labelling_p, permuted_labels, sign_flip_p, tail_p
from ontogeny.storage.record_filter import sql_text
from ontogeny.storage.run import Run

_EMERGENCE_THRESHOLDS = {"auroc": 0.75, "r2": 0.5, "answer_accuracy": 0.75}
_CHANCE_SCORES = {"auroc": 0.5, "r2": 0.0, "answer_accuracy": 0.5}
_EMERGENCE_FORMS: tuple[ThresholdForm, ...] = ("half", "threshold")
_MIN_PAIRED_GROUPS = 10
"""Held-out groups with questions that the paired difference of readable and used needs."""


@dataclass(frozen=True, eq=False)
class ConceptSeries:
    """One concept over the checkpoints of a run."""

    design: Design
    visits: Sequence[MeasuredCheckpoint]
    best: BestSite
    untrained: Mapping[str, Tensor] | None
    """Held-out scores of the untrained model; None without one."""
    surface: Mapping[str, float]
    """The best surface baseline of each metric."""
    surface_scores: tuple[str, Float[Tensor, "example k"]] | None = None
    """Under cross-fitting, name and out-of-fold scores of the surface baseline with the best main metric."""
    _held_out: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    _cross_fitted: dict[tuple[str, ...], CrossFittedScores | None] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The main metric of the concept."""
        return scores.metrics_for(self.design.concept.kind)[0]

    def held_out(self, run: Run, method: str, visits: Sequence[MeasuredCheckpoint]) -> Float[Tensor, "step example k"]:
        """Held-out scores of a probe at the best site, each read once."""
        known = self._held_out.setdefault(method, {})
        key, at = f"{method}/{self.best.part}", slice(self.best.at, self.best.at + 1)
        known |= {v.unit: run.tensor_rows("scores", v.unit, key, at) for v in visits if v.unit not in known}
        return torch.cat([known[visit.unit] for visit in visits])

    def width(self, run: Run, method: str, visit: MeasuredCheckpoint) -> int:
        """Dimensions of the activations at the best site."""
        at, key = slice(self.best.at, self.best.at + 1), f"{method}/{self.best.part}/direction"
        return int(run.tensor_rows("directions", visit.unit, key, at).shape[1])

    def cross_fitted(self, run: Run, method: str, visits: Sequence[MeasuredCheckpoint]) -> CrossFittedScores | None:
        """`held_out` for metrics with intervals over fits, computed once; None without cross-fitting."""
        key = method, *(visit.unit for visit in visits)
        if key not in self._cross_fitted:
            held_out, width = self.held_out(run, method, visits), self.width(run, method, visits[0])
            self._cross_fitted[key] = scores.cross_fitted_scores(held_out, self.design, width=width, method=method)
        return self._cross_fitted[key]

    @cached_property
    def surface_samples(self) -> Float[Tensor, " sample"]:
        """The metric of the best surface baseline on each resample of the groups, paired with the probe; only under cross-fitting."""
        assert self.surface_scores is not None
        words = self.surface_scores[1][None]
        fits = scores.cross_fitted_scores(words, self.design, width=len(self.design.y))
        return scores.resampled_scores(self.metric, words, self.design, fits)[1][:, 0]

    @property
    def stages(self) -> list[list[MeasuredCheckpoint]]:
        """The checkpoints of each stage that have a step."""
        names = dict.fromkeys(visit.stage for visit in self.visits)
        inside = [[v for v in self.visits if v.stage == name and v.step is not None] for name in names]
        return [visits for visits in inside if visits]


@dataclass(frozen=True, eq=False)
class ScoreCurve:
    """A score over the checkpoints of a stage, with its resamples and the baseline it must exceed."""

    of: str
    steps: Float[Tensor, " step"]
    points: Float[Tensor, " step"]
    samples: Float[Tensor, "sample step"]
    floor: Float[Tensor, " sample"]
    floor_name: str
    end_p: float
    """p of the last score under permuted labels."""
    by_fold: tuple[Float[Tensor, " fold"], Float[Tensor, " fold"]] | None = None
    """The highest and the last score on each fold's own groups; None without cross-fitting or a score."""


@dataclass(frozen=True, eq=False)
class _Look:
    """One curve of one stage in which an event was looked for."""

    series: ConceptSeries
    first: MeasuredCheckpoint
    metric: str
    method: str
    form: ThresholdForm
    event: EmergenceEvent
    coords: Mapping[str, str]

    @property
    def family(self) -> "_LookFamily":
        return self.metric, self.form, self.method == "mass_mean"

    @property
    def key(self) -> tuple[str, str | None, str, str, str]:
        return self.series.design.concept.name, self.first.stage, self.metric, self.method, self.form


_LookFamily = tuple[str, str, bool]
"""Looks with an equal family are corrected together: metric, form, and whether the probe is `mass_mean` or the concept's own."""


def emergence_rows(
    run: Run, series: Sequence[ConceptSeries], others: Mapping[_LookFamily, Sequence[float]], seed: int
) -> dict[str, list[Record]]:
    """Steps of emergence, loss and right answers, and readable minus answered, by concept: in each stage and in both forms.

    Args:
        others: From `looks_at_others`.
    """
    looks = [look for one in series for visits in one.stages for look in _looks(run, one, visits, seed)]
    families: dict[_LookFamily, list[int]] = defaultdict(list)
    for i, look in enumerate(looks):
        families[look.family].append(i)
    for family, members in families.items():
        events = correct_events([looks[i].event for i in members], others.get(family, []))
        for i, event in zip(members, events, strict=True):
            looks[i] = replace(looks[i], event=event)
    by_key = {look.key: look for look in looks}
    rows: dict[str, list[Record]] = {one.design.concept.name: [] for one in series}
    for look in looks:
        name, stage, metric, _, form = look.key
        rows[name].append(_event_row(look, seed))
        answers = by_key.get((name, stage, "used_step", "likelihood", form))
        if metric == "emergence_step" and answers is not None:
            rows[name].append(_difference_row(look, answers, seed))
    return rows


def _looks(run: Run, series: ConceptSeries, visits: Sequence[MeasuredCheckpoint], seed: int) -> Iterator[_Look]:
    """The curves of one stage."""
    best = series.best
    answers = _answer_curve(run, series, visits, seed)
    for method in (m for m in common_methods(visits) if m in (best.method, "mass_mean")):
        curve = _probe_curve(run, series, visits, method)
        for form in _EMERGENCE_FORMS:
            for metric, find in (("emergence_step", emergence_event), ("loss_step", loss_event)):
                event = _event(find, curve, form, seed)
                yield _Look(series, visits[0], metric, method, form, event, _coords(curve, form, metric))
    if answers is not None:
        for form in _EMERGENCE_FORMS:
            event = _event(emergence_event, answers, form, seed)
            yield _Look(series, visits[0], "used_step", "likelihood", form, event, _coords(answers, form, "used_step"))


def _event(find, curve: ScoreCurve, form: ThresholdForm, seed: int) -> EmergenceEvent:
    more = {"end_p": curve.end_p} if find is emergence_event else {}
    return find(
        curve.steps,
        curve.points,
        curve.samples,
        floor=curve.floor,
        form=form,
        threshold=_EMERGENCE_THRESHOLDS[curve.of],
        seed=seed,
        **more,
    )


def _probe_curve(run: Run, series: ConceptSeries, visits: Sequence[MeasuredCheckpoint], method: str) -> ScoreCurve:
    design, best, untrained, surface = series.design, series.best, series.untrained, series.surface
    metric, key = series.metric, f"{method}/{best.part}"
    stacked = series.held_out(run, method, visits)
    floors = {"chance": torch.full((len(design.weights),), _CHANCE_SCORES[metric])}
    if series.surface_scores is not None:
        floors["the best surface baseline"] = series.surface_samples
    elif metric in surface:
        floors["the best surface baseline"] = torch.full((len(design.weights),), surface[metric])
    if untrained is not None and key in untrained:
        at_start = untrained[key][best.at : best.at + 1]
        untrained_fits = scores.cross_fitted_scores(at_start, design, width=series.width(run, method, visits[0]))
        floors["the untrained model"] = scores.resampled_scores(metric, at_start, design, untrained_fits)[1][:, 0]
    floor, name = _highest_floor(floors)
    points, samples = scores.resampled_scores(metric, stacked, design, series.cross_fitted(run, method, visits))
    return ScoreCurve(
        of=metric,
        steps=torch.tensor([visit.step or 0 for visit in visits], dtype=torch.float64),
        points=points,
        samples=samples,
        floor=floor,
        floor_name=name,
        end_p=_end_p(run, design, metric, visits[-1], method, best, stacked[-1:]),
        by_fold=_peak_and_last_by_fold(points, stacked, design),
    )


def _peak_and_last_by_fold(
    points: Float[Tensor, " step"], stacked: scores.ProbeScores, design: Design
) -> tuple[Float[Tensor, " fold"], Float[Tensor, " fold"]] | None:
    known = (~points.isnan()).nonzero()[:, 0]
    if not len(known):
        return None
    peak = int(points.nan_to_num(-torch.inf).argmax())
    by_fold = scores.fold_scores(stacked[[peak, int(known[-1])]], design)
    return None if by_fold is None else (by_fold[:, 0], by_fold[:, 1])


def _end_p(
    run: Run,
    design: Design,
    metric: str,
    visit: MeasuredCheckpoint,
    method: str,
    best: BestSite,
    last: scores.ProbeScores,
) -> float:
    """p of the score of one site under permuted labels.

    Under cross-fitting, the best site is chosen by the scores of the same examples: its p is then that of the best of all sites.
    """
    y = design.y_test
    least = least_labelling_p(y, design.groups[design.split.test])
    if design.test_folds is not None:
        key = f"{method}/{best.part}/null"
        kept = run.scores(visit.unit, [f"{key}_observed", f"{key}_maxima"])
        return tail_p(float(kept[f"{key}_observed"][best.at]), kept[f"{key}_maxima"], least=least)
    test = scores.score_test(metric, last, y, permuted_labels(y, design.permutations))
    return tail_p(float(test.observed[0]), test.maxima, least=least)


def surface_excess_rows(run: Run, series: ConceptSeries, seed: int) -> list[Record]:
    """How much the probe at the best site exceeds the best surface baseline at each checkpoint, on the same examples."""
    design, best = series.design, series.best
    if series.surface_scores is None:
        return []
    control, words = series.surface_scores
    probe = series.cross_fitted(run, best.method, series.visits)
    if probe is None:
        return []
    excess, ends = probe.excess(replace(probe, values=words[None].to(probe.values), method=""))
    rows = []
    for i, visit in enumerate(series.visits):
        row = design.row_context(seed).row(
            f"{series.metric}_excess",
            float(excess[i]),
            best.site,
            interval=ends[i].ends,
            method=best.method,
            control=control,
            reason="degenerate scores",
        )
        rows += stamp_checkpoint([row], visit)
    return rows


def _answer_curve(
    run: Run, series: ConceptSeries, visits: Sequence[MeasuredCheckpoint], seed: int
) -> ScoreCurve | None:
    """Share of questions answered correctly, resampled like the probe's held-out groups; None without questions."""
    design, untrained = series.design, series.untrained
    if not design.concept.answers:
        return None
    groups = answer_groups(design)
    tested = torch.isin(groups, design.groups[design.split.test])
    if len(groups[tested].unique()) < _MIN_PAIRED_GROUPS:
        tested = torch.ones_like(tested)
        weights = bootstrap.group_weights(groups, samples=len(design.weights), seed=seed)
    else:
        # Each group has the same weight as for the probe, so the two curves are paired.
        of_test = design.groups[design.split.test]
        place = {int(group): i for i, group in enumerate(of_test.tolist())}
        weights = design.weights[:, [place[int(group)] for group in groups[tested]]]
    margins = torch.stack([run.scores(visit.unit, ["answers"])["answers"] for visit in visits])
    right = (margins[:, tested] > 0).float()
    floors = {"chance": torch.full((len(weights),), _CHANCE_SCORES["answer_accuracy"])}
    if untrained is not None and "answers" in untrained:
        start = (untrained["answers"][None, tested] > 0).float()
        floors["the untrained model"] = bootstrap.mean_samples(start, weights)[:, 0]
    floor, name = _highest_floor(floors)
    return ScoreCurve(
        of="answer_accuracy",
        steps=torch.tensor([visit.step or 0 for visit in visits], dtype=torch.float64),
        points=right.mean(-1),
        samples=bootstrap.mean_samples(right, weights),
        floor=floor,
        floor_name=name,
        end_p=sign_flip_p(right[-1] - _CHANCE_SCORES["answer_accuracy"], groups[tested], seed=seed),
    )


def _highest_floor(floors: Mapping[str, Float[Tensor, " sample"]]) -> tuple[Float[Tensor, " sample"], str]:
    """The highest baseline and its name."""
    name = max(floors, key=lambda key: float(floors[key].nanmean()))
    return floors[name], name


def _coords(curve: ScoreCurve, form: str, metric: str) -> dict[str, str]:
    floor = f"{float(curve.floor.nanmean()):.4f}"
    coords = {"form": form, "of": curve.of, "floor": floor, "floor_name": curve.floor_name}
    coords |= {"threshold": str(_EMERGENCE_THRESHOLDS[curve.of])} if form == "threshold" else {}
    return coords | _fold_coords(curve, metric)


def _fold_coords(curve: ScoreCurve, metric: str) -> dict[str, str]:
    """How many of the folds show the same change on their own groups: end above floor, or for a loss below the peak."""
    if curve.by_fold is None or metric not in ("emergence_step", "loss_step"):
        return {}
    peak, last = curve.by_fold
    change = last - float(curve.floor.nanmean()) if metric == "emergence_step" else peak - last
    known = change[~change.isnan()]
    return {"folds": str(len(known)), "folds_agree": str(int((known > 0).sum()))}


def _event_row(look: _Look, seed: int) -> Record:
    event = look.event
    tested = {} if math.isnan(event.p) else {"p": f"{event.p:.4g}", "p_corrected": f"{event.corrected_p:.4g}"}
    return _row(look, look.metric, event, {**look.coords, **tested, "looks": str(event.looks)}, seed)


def _difference_row(look: _Look, answers: _Look, seed: int) -> Record:
    """Readable minus answered, where the questions ask about the texts that are read."""
    if questions_begin_with_texts(look.series.design.concept):
        difference = step_difference(look.event, answers.event)
    else:
        reason = "the questions do not begin with the texts that are read, so that the two steps cannot be compared"
        difference = EventDifference(math.nan, math.nan, math.nan, reason)
    return _row(look, "readable_minus_used", difference, {"form": look.form}, seed)


def _row(
    look: _Look, metric: str, event: EmergenceEvent | EventDifference, coords: Mapping[str, str], seed: int
) -> Record:
    return look.series.design.row_context(seed).row(
        metric,
        event.value if isinstance(event, EventDifference) else event.step,
        None if look.method == "likelihood" else look.series.best.site,
        interval=(event.low, event.high),
        note=event.reason or None,
        stage=look.first.stage,
        train_seed=look.first.train_seed,
        method=look.method,
        coords=coords,
    )


def looks_at_others(run: Run, concepts: Iterable[str]) -> dict[_LookFamily, list[float]]:
    """p of the looks at other concepts, which an earlier session traced into the run, by family."""
    names = ", ".join(map(sql_text, concepts))
    rows = run.query(
        "select metric, coords['form'] as form, method, coords['p'] as p from records "
        f"where metric in ('emergence_step', 'loss_step', 'used_step') and concept not in ({names}) and coords['p'] is not null"
    )
    looks: dict[_LookFamily, list[float]] = defaultdict(list)
    for metric, form, method, p in zip(rows["metric"], rows["form"], rows["method"], rows["p"], strict=True):
        looks[metric, form, method == "mass_mean"].append(float(p))
    return looks
