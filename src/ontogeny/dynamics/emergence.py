"""Emergence, use and loss of a concept: events of its score curves at its best site."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.dynamics.measured_checkpoints import BestSite, MeasuredCheckpoint, common_methods
from ontogeny.measurements import scores
from ontogeny.measurements.behaviour import answer_groups
from ontogeny.measurements.design import Design
from ontogeny.records import Record
from ontogeny.statistics import bootstrap
from ontogeny.statistics.emergence import (
    EmergenceEvent,
    EventDifference,
    ThresholdForm,
    emergence_event,
    loss_event,
    paired_difference,
)
from ontogeny.storage.run import Run

_EMERGENCE_THRESHOLDS = {"auroc": 0.75, "r2": 0.5, "answer_accuracy": 0.75}
_CHANCE_SCORES = {"auroc": 0.5, "r2": 0.0, "answer_accuracy": 0.5}
_EMERGENCE_FORMS: tuple[ThresholdForm, ...] = ("half", "threshold")
_MIN_PAIRED_GROUPS = 10
"""Held-out groups with questions that the paired difference of readable and used needs."""


@dataclass(frozen=True, eq=False)
class ScoreCurve:
    """A score over the checkpoints of a stage, with its resamples and the baseline it must exceed."""

    of: str
    steps: Float[Tensor, " step"]
    points: Float[Tensor, " step"]
    samples: Float[Tensor, "sample step"]
    floor: Float[Tensor, " sample"]
    floor_name: str


def emergence_rows(
    run: Run,
    design: Design,
    visits: Sequence[MeasuredCheckpoint],
    best: BestSite,
    untrained: Mapping[str, Tensor] | None,
    surface: Mapping[str, float],
    seed: int,
) -> list[Record]:
    """Steps of emergence, loss and use, and readable minus used, within one stage and in both forms."""
    numbered = [visit for visit in visits if visit.step is not None]
    if not numbered:
        return []
    rows, row = [], partial(_row, design=design, first=numbered[0], seed=seed)
    used = _answer_curve(run, design, numbered, untrained, seed)
    for method in (m for m in common_methods(numbered) if m in (best.method, "mass_mean")):
        curve = _probe_curves(run, design, numbered, best, method, untrained, surface)
        for form in _EMERGENCE_FORMS:
            readable = _event(emergence_event, curve, form, seed)
            lost = _event(loss_event, curve, form, seed)
            rows.append(row("emergence_step", readable, _coords(curve, form), method=method, best=best))
            rows.append(row("loss_step", lost, _coords(curve, form), method=method, best=best))
            if used is not None:
                use = _event(emergence_event, used, form, seed)
                if method == best.method:
                    rows.append(row("used_step", use, _coords(used, form), method="likelihood", best=None))
                difference = paired_difference(readable, use)
                rows.append(row("readable_minus_used", difference, {"form": form}, method=method, best=best))
    return rows


def _event(find, curve: ScoreCurve, form: ThresholdForm, seed: int) -> EmergenceEvent:
    return find(
        curve.steps,
        curve.points,
        curve.samples,
        floor=curve.floor,
        form=form,
        threshold=_EMERGENCE_THRESHOLDS[curve.of],
        seed=seed,
    )


def _probe_curves(
    run: Run,
    design: Design,
    visits: Sequence[MeasuredCheckpoint],
    best: BestSite,
    method: str,
    untrained: Mapping[str, Tensor] | None,
    surface: Mapping[str, float],
) -> ScoreCurve:
    metric = scores.metrics_for(design.concept.kind)[0]
    key = f"{method}/{best.part}"
    at = slice(best.at, best.at + 1)
    stacked = torch.cat([run.tensor_rows("scores", visit.unit, key, at) for visit in visits])
    floors = {"chance": torch.full((len(design.weights),), _CHANCE_SCORES[metric])}
    if metric in surface:
        floors["the best surface baseline"] = torch.full((len(design.weights),), surface[metric])
    if untrained is not None and key in untrained:
        at_start = untrained[key][best.at : best.at + 1]
        floors["the untrained model"] = scores.bootstrap_scores(metric, at_start, design.y_test, design.weights)[:, 0]
    floor, name = _highest_floor(floors)
    return ScoreCurve(
        of=metric,
        steps=torch.tensor([visit.step or 0 for visit in visits], dtype=torch.float64),
        points=scores.score(metric, stacked, design.y_test),
        samples=scores.bootstrap_scores(metric, stacked, design.y_test, design.weights),
        floor=floor,
        floor_name=name,
    )


def _answer_curve(
    run: Run, design: Design, visits: Sequence[MeasuredCheckpoint], untrained: Mapping[str, Tensor] | None, seed: int
) -> ScoreCurve | None:
    """Share of questions answered correctly, resampled like the probe's held-out groups; None without questions."""
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
    )


def _highest_floor(floors: Mapping[str, Float[Tensor, " sample"]]) -> tuple[Float[Tensor, " sample"], str]:
    """The highest baseline and its name."""
    name = max(floors, key=lambda key: float(floors[key].nanmean()))
    return floors[name], name


def _coords(curve: ScoreCurve, form: str) -> dict[str, str]:
    floor = f"{float(curve.floor.nanmean()):.4f}"
    coords = {"form": form, "of": curve.of, "floor": floor, "floor_name": curve.floor_name}
    return coords | ({"threshold": str(_EMERGENCE_THRESHOLDS[curve.of])} if form == "threshold" else {})


def _row(
    metric: str,
    event: EmergenceEvent | EventDifference,
    coords: Mapping[str, str],
    *,
    design: Design,
    first: MeasuredCheckpoint,
    seed: int,
    method: str,
    best: BestSite | None,
) -> Record:
    return design.row_context(seed).row(
        metric,
        event.value if isinstance(event, EventDifference) else event.step,
        best.site if best else None,
        interval=(event.low, event.high),
        note=event.reason or None,
        stage=first.stage,
        train_seed=first.train_seed,
        method=method,
        coords=coords,
    )
