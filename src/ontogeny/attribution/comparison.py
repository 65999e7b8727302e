"""All estimates of the stages' effects on a small run, beside retraining without each stage: agreement, signed error and cost.

Studies of planted stages share it. Rows of effects have the metric `stage_effect`, the estimator as `method` and the stage as `stage`, as
those of `ontogeny attribute`; retraining is the method `retraining`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from ontogeny.attribution.baselines import gradient_dot_scores, order_scores
from ontogeny.attribution.checkpoint_tiers import Values, Weights, checkpoint_scores
from ontogeny.attribution.cost import FORWARD, GAUSS_NEWTON_PRODUCT, GRADIENT, HESSIAN_PRODUCT, retraining_passes
from ontogeny.attribution.metasmoothness import metasmoothness, share_linearity
from ontogeny.attribution.optimizer_steps import Vector
from ontogeny.attribution.path import PathStage, TrainingPath, record_path
from ontogeny.attribution.recorded_tiers import Behaviour, CurvatureMode, behaviour_value, reverse_scores
from ontogeny.attribution.retraining import Floats, RetrainedEffects, retrained_effects
from ontogeny.attribution.segments import KRYLOV_RANK, path_segment_scores, path_segments
from ontogeny.errors import BadInput
from ontogeny.jobs.study.paper_study import Lab
from ontogeny.records import Record
from ontogeny.statistics.rank_correlation import rank_correlation

_EVERY = 5
"""Steps between the Hessian products of the thinned estimate."""
_SEGMENT_BATCHES = 4
_CURVATURES: Mapping[str, CurvatureMode] = {
    "hessian": "hessian",
    "gauss newton": "gauss_newton",
    "thinned": "thinned",
    "no hessian": "none",
}
_AT_ENDS = ("endpoint", "subtraction", "addition", "linearised")
TIERS = (*_CURVATURES, "segments", *_AT_ENDS, "gradient dot", "order")
"""Estimates that every experiment has."""


@dataclass(frozen=True)
class StageExperiment:
    """A training in stages, and the behaviours whose change by each stage is estimated."""

    make: Callable[[], nn.Module]
    stages: Callable[[int], Sequence[PathStage]]
    """The stages with the batches of a data order."""
    behaviours: Mapping[str, Behaviour]
    """By name; the first is the one by which a stage is named."""
    units: Mapping[str, str]
    baselines: Mapping[str, Callable[[TrainingPath], Sequence[float]]] = field(default_factory=dict)
    """Further scores of the stages for the first behaviour, from the stages' data; they have no unit, and count for ranks only."""


@dataclass(frozen=True)
class TierComparison:
    """Estimates and truth of one seed: stage × behaviour each."""

    experiment: StageExperiment
    path: TrainingPath
    """Of the first data order."""
    truth: RetrainedEffects
    estimates: Mapping[str, Floats]
    """By tier; NaN where a tier needs a gradient that the behaviour does not have, or the tier has no unit."""
    reasons: Mapping[str, str]
    """By tier: why it lacks a behaviour."""
    passes: Mapping[str, float]
    """Cost of each tier for one behaviour, in forward passes over a batch."""

    @property
    def retraining(self) -> float:
        """Forward passes of retraining without each stage once."""
        return retraining_passes([stage.config.steps for stage in self.path.stages])


def compare_tiers(
    experiment: StageExperiment, *, seed: int, orders: int, dtype: torch.dtype = torch.float32
) -> TierComparison:
    """Train through the stages, estimate their effects by every tier, and retrain without each stage in every data order."""
    path = record_path(experiment.make, experiment.stages(0), seed=seed, dtype=dtype)
    behaviours = list(experiment.behaviours.values())
    truth = retrained_effects(
        experiment.make, experiment.stages, behaviours, seeds=[seed], orders=range(orders), dtype=dtype
    )
    reasons: dict[str, str] = {}
    return TierComparison(experiment, path, truth, tier_estimates(experiment, path, reasons), reasons, _passes(path))


def tier_estimates(
    experiment: StageExperiment, path: TrainingPath, reasons: dict[str, str] | None = None
) -> dict[str, Floats]:
    """Each estimate as stage × behaviour; NaN where a tier cannot give one, for example as the behaviour has no gradient.

    Args:
        reasons: Is filled, by tier, with why a behaviour has no estimate.
    """
    segments = path_segments(path, batches=_SEGMENT_BATCHES)
    tiers: dict[str, Callable[[Behaviour], Sequence[float]]] = {
        name: lambda b, mode=mode: reverse_scores(path, b, curvature=mode, every=_EVERY).scores
        for name, mode in _CURVATURES.items()
    }
    tiers["segments"] = lambda b: path_segment_scores(path, b, segments)
    tiers["gradient dot"] = lambda b: gradient_dot_scores(path, b)
    count = len(path.stages)
    columns: dict[str, list[Sequence[float]]] = {name: [] for name in TIERS}
    for behaviour in experiment.behaviours.values():
        for name, estimate in tiers.items():
            try:
                columns[name].append(estimate(behaviour))
            except BadInput as error:
                columns[name].append([math.nan] * count)
                if reasons is not None:
                    reasons[name] = str(error)
        for name, scores in _scores_at_ends(path, behaviour).items():
            columns[name].append(scores)
        columns["order"].append(order_scores(count))
    estimates = {name: np.array(values, dtype=np.float64).T for name, values in columns.items()}
    for name, score in experiment.baselines.items():
        estimates[name] = np.full((count, len(experiment.behaviours)), math.nan)
        estimates[name][:, 0] = score(path)
    return estimates


def named_stage(scores: Floats, gap: float, error: float) -> int | None:
    """The stage with the largest effect on a gap; None if the final gap is not three standard errors above zero.

    Args:
        scores: Effect of each stage on the gap.
        gap: The gap at the end of training.
        error: Its standard error where no stage made it.
    """
    if not np.isfinite(scores).all() or not gap > 3 * error:
        return None
    return int(scores.argmax())


def comparison_rows(
    lab: Lab, comparison: TierComparison, names: Sequence[str], **coords: str | int | float
) -> Iterator[Record]:
    """Effects of every stage by every tier and by retraining; agreement, signed error and cost of every tier.

    Args:
        names: Names of the stages in the rows.
        coords: Further coordinates of the agreement.
    """
    mean, orders = comparison.truth.mean, comparison.truth.effects.shape[1]
    for b, behaviour in enumerate(comparison.experiment.behaviours):
        about = {"behaviour": behaviour, "unit": comparison.experiment.units[behaviour], "question": "updates skipped"}
        by_order = comparison.truth.effects[0, :, :, b]
        for s, name in enumerate(names):
            low, high = float(by_order[:, s].min()), float(by_order[:, s].max())
            row = lab.row("stage_effect", mean[s, b], name, n=orders, low=low, high=high)
            yield replace(row, method="retraining", coords=about)
            for tier in TIERS:
                if tier in ("order", "gradient dot"):
                    continue
                reason = comparison.reasons.get(tier, "the behaviour has no gradient, which this estimate needs")
                value = comparison.estimates[tier][s, b]
                yield replace(lab.row("stage_effect", value, name, reason=reason), method=tier, coords=about)
    where = {key: str(value) for key, value in coords.items()}
    for row in _agreement_rows(lab, comparison):
        yield replace(row, coords=where)


def _agreement_rows(lab: Lab, comparison: TierComparison) -> Iterator[Record]:
    mean, orders = comparison.truth.mean, comparison.truth.effects.shape[1]
    rng = np.random.default_rng([lab.seed, 3])
    for tier, scores in comparison.estimates.items():
        known = np.isfinite(scores) & np.isfinite(mean)
        estimate, truth = scores[known], mean[known]
        if len(truth) < 3:
            continue
        mixed = rng.permutation(estimate)
        scale = float(np.abs(truth).sum())
        yield lab.row("rank_correlation", rank_correlation(estimate, truth), tier, n=len(truth))
        # The null: the same numbers on other stages and behaviours, for this tier and for the order of the stages.
        yield lab.row("rank_correlation", rank_correlation(mixed, truth), tier, n=len(truth), control="shuffled")
        if tier != "order" and tier not in comparison.experiment.baselines:
            yield lab.row("error", float(np.abs(estimate - truth).sum()) / scale, tier, n=len(truth))
            yield lab.row("error", float(np.abs(mixed - truth).sum()) / scale, tier, control="shuffled")
            # Positive: the effects are over-estimated in size.
            signed = float((np.sign(truth) * (estimate - truth)).sum()) / scale
            yield lab.row("signed_error", signed, tier, n=len(truth))
        if tier in comparison.passes:
            yield lab.row("cost", comparison.passes[tier] / comparison.retraining, tier)
    yield lab.row("cost", float(orders), "retraining")
    if orders > 1:
        yield lab.row("noise_ceiling", comparison.truth.noise_ceiling, "retraining", n=mean.size)


def validity_rows(lab: Lab, comparison: TierComparison, names: Sequence[str]) -> Iterator[Record]:
    """Metasmoothness of each stage, and how straight its first behaviour responds over the whole of its updates."""
    experiment = comparison.experiment
    stages = experiment.stages(0)
    first = next(iter(experiment.behaviours.values()))
    for s, name in enumerate(names):
        smooth = metasmoothness(experiment.make, stages, s, seed=lab.seed)
        yield lab.row("metasmoothness", smooth.value, name)
        straight = share_linearity(experiment.make, stages, s, first, seed=lab.seed)
        yield lab.row("share_linearity", straight, name)


def follow_up_rows(
    lab: Lab,
    comparison: TierComparison,
    stage: int,
    without: TrainingPath,
    accuracies: Callable[[nn.Module], Mapping[str, float]],
    control: str | None = None,
) -> Iterator[Record]:
    """Worst-group and average accuracy with all stages, without a stage, and with its change of the weights subtracted.

    Args:
        without: The training without the stage.
    """
    path = comparison.path
    ends = path.ends
    weights = {
        "all stages": path.final.parameters,
        "without the stage": without.final.parameters,
        "stage subtracted": path.final.parameters - (ends[stage + 1] - ends[stage]),
    }
    for name, vector in weights.items():
        path.network.load(vector)
        with torch.no_grad():
            groups = accuracies(path.network.network)
        yield lab.row("worst_group_accuracy", min(groups.values()), name, n=len(groups), control=control)
        yield lab.row("average_accuracy", float(np.mean(list(groups.values()))), name, n=len(groups), control=control)


def _scores_at_ends(path: TrainingPath, behaviour: Behaviour) -> dict[str, list[float]]:
    ends = [path.network.split(end) for end in path.ends]

    def value(weights: Weights) -> Values:
        return np.array([behaviour_value(path, _flat(weights), behaviour)])

    def gradient(weights: Weights) -> Weights:
        slope = path.network.gradient(_flat(weights), lambda network, _: behaviour(network), None)
        return path.network.split(slope)

    try:
        scores = checkpoint_scores(ends, value, gradient)
    except RuntimeError:
        scores = checkpoint_scores(ends, value)
    missing = [np.array([math.nan])] * len(path.stages)
    return {name: [float(v[0]) for v in scores.get(name, missing)] for name in _AT_ENDS}


def _flat(weights: Mapping[str, Tensor]) -> Vector:
    return torch.cat([weight.flatten() for weight in weights.values()])


def _passes(path: TrainingPath) -> dict[str, float]:
    """Cost of each tier; the behaviour's examples count as one batch."""
    steps, stages = len(path.steps), len(path.stages)
    return {
        "hessian": steps * HESSIAN_PRODUCT,
        "gauss newton": steps * GAUSS_NEWTON_PRODUCT,
        "thinned": math.ceil(steps / _EVERY) * HESSIAN_PRODUCT,
        "no hessian": GRADIENT,
        "segments": stages * _SEGMENT_BATCHES * KRYLOV_RANK * GAUSS_NEWTON_PRODUCT,
        "endpoint": (stages + 1) * FORWARD,
        "subtraction": (stages + 1) * FORWARD,
        "addition": (stages + 1) * FORWARD,
        "linearised": GRADIENT,
        "gradient dot": (steps + 1) * GRADIENT,
        "order": 0.0,
    }
