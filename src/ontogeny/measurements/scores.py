"""Scores of a probe by the kind of its target: point, bootstrap and permutation null of each metric."""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor

from ontogeny.measurements.cross_fitted_scores import CrossFittedScores
from ontogeny.measurements.design import Design
from ontogeny.metrics import separability
from ontogeny.statistics import bootstrap, cross_fitting, permutation
from ontogeny.statistics.bootstrap import Interval

_LEAST_OF_CLASS = 5
ProbeScores = Float[Tensor, "site example k"]


def metrics_for(kind: str) -> tuple[str, ...]:
    """Metrics of a kind of target, the main one first."""
    return ("r2",) if kind == "number" else ("auroc", "accuracy")


def score(metric: str, scores: ProbeScores, y: Tensor) -> Float[Tensor, " site"]:
    """The metric at every site; NaN if it cannot be computed."""
    if metric == "r2":
        return separability.r2(scores[..., 0], y)
    if metric == "accuracy":
        return separability.accuracy(scores, y)
    return separability.auroc(scores[..., 0], y) if y.dtype == torch.bool else separability.macro_auroc(scores, y)


def bootstrap_scores(
    metric: str, scores: ProbeScores, y: Tensor, weights: Num[Tensor, "sample example"]
) -> Float[Tensor, "sample site"]:
    """The metric at every site on every resample of the groups."""
    if metric == "r2":
        return bootstrap.r2_samples(scores[..., 0], y, weights)
    if metric == "accuracy":
        return bootstrap.mean_samples(separability.correct(scores, y), weights)
    if y.dtype == torch.bool:
        return bootstrap.auroc_samples(scores[..., 0], y, weights)
    return bootstrap.macro_auroc_samples(scores, y, weights)


def cross_fitted_scores(
    scores: ProbeScores, design: Design, *, width: int, method: str = ""
) -> CrossFittedScores | None:
    """Scores of probes on the examples of a design, for metrics with intervals over fits; None without cross-fitting.

    Args:
        width: Dimensions of the activations.
        method: The probe, if one of those whose fits settle soon.
    """
    if design.test_folds is None:
        return None
    y = design.y_test
    pairs = design.test_pairs if y.dtype == torch.bool else None
    return CrossFittedScores(scores, y, design.test_folds, design.test_group_ids, width, method, pairs)


def design_scores(
    metric: str, scores: ProbeScores, design: Design, cross_fitted: CrossFittedScores | None
) -> tuple[Float[Tensor, " site"], Interval]:
    """Score probes on the held-out examples of a design, with an interval over groups and, under cross-fitting, over fits.

    Args:
        cross_fitted: From `cross_fitted_scores`.
    """
    if cross_fitted is None:
        scored = held_out_scores(metric, scores, design.y_test, design.weights, design.test_groups)
        return scored.value, scored.interval
    return cross_fitted.score(metric).value, _told_interval(metric, cross_fitted.interval(metric), design.y_test)


def resampled_scores(
    metric: str, scores: ProbeScores, design: Design, cross_fitted: CrossFittedScores | None
) -> tuple[Float[Tensor, " site"], Float[Tensor, "sample site"]]:
    """The score on the held-out examples of a design, and on each resample of the groups, paired over sites and checkpoints.

    Args:
        cross_fitted: From `cross_fitted_scores`; the fits are then resampled as well.
    """
    if cross_fitted is None:
        y = design.y_test
        return score(metric, scores, y), bootstrap_scores(metric, scores, y, design.weights)
    return cross_fitted.score(metric).value, cross_fitted.samples(metric, design.weights)


def design_mean(each: Float[Tensor, "site example"], design: Design, fits: Float[Tensor, " site"] | None) -> Interval:
    """Interval of the mean over held-out examples of a number that depends on their scores, such as nats."""
    if fits is None:
        resampled = bootstrap.mean_samples(each, design.weights)
        return bootstrap.percentile_interval(each.mean(-1), resampled, groups=design.test_groups)
    result = cross_fitting.cross_fit_mean(each)
    variance = cross_fitting.group_variance(result.influence, design.test_group_ids)
    return cross_fitting.cross_fit_interval(result.value, variance, fits, share=False)


def fold_scores(scores: ProbeScores, design: Design) -> Float[Tensor, "fold site"] | None:
    """The main metric on each fold's own groups, NaN where it cannot be computed; None without cross-fitting."""
    folds, y = design.test_folds, design.y_test
    if folds is None:
        return None
    if y.dtype == torch.bool:
        return cross_fitting.fold_aurocs(scores[..., 0], y, folds)
    metric = metrics_for(design.concept.kind)[0]
    return torch.stack([score(metric, scores[:, folds == f], y[folds == f]) for f in range(int(folds.max()) + 1)])


def _told_interval(metric: str, ends: Interval, y: Tensor) -> Interval:
    """No interval for an AUROC with so few examples of a class that none is right."""
    if metric == "auroc" and few_of_class(y) is not None:
        return Interval(torch.full_like(ends.low, torch.nan), torch.full_like(ends.high, torch.nan))
    return ends


def few_of_class(y: Tensor) -> str | None:
    """Why an AUROC has no interval: a class has fewer than five held-out examples; None if it has one."""
    counts = y.long().unique(return_counts=True)[1]
    if y.is_floating_point() or int(counts.min()) >= _LEAST_OF_CLASS:
        return None
    return f"no interval: a class has {int(counts.min())} held-out examples, fewer than {_LEAST_OF_CLASS}"


def score_test(
    metric: str, scores: ProbeScores, y: Tensor, labels: Shaped[Tensor, "sample example"]
) -> permutation.PermutationTest:
    """The metric at every site against its null, with `y` under each permutation as `labels`."""
    if metric == "r2":
        return permutation.permutation_test(partial(permutation.permuted_r2, scores[..., 0]), y, labels)
    if y.dtype == torch.bool:
        return permutation.auroc_test(scores[..., 0], y, labels)
    return permutation.macro_auroc_test(scores, y, labels)


def score_interval(
    metric: str, value: Float[Tensor, " site"], resampled: Float[Tensor, "sample site"], groups: int
) -> Interval:
    """95 % interval: on the logit scale for shares, by percentiles for r2."""
    make = bootstrap.percentile_interval if metric == "r2" else bootstrap.share_interval
    return make(value, resampled.to(value.dtype), groups=groups)


@dataclass(frozen=True, eq=False)
class HeldOutScores:
    """A metric of each probe on held-out examples."""

    value: Float[Tensor, " probe"]
    samples: Float[Tensor, "sample probe"]
    """On each resample of the groups."""
    interval: Interval


def held_out_scores(
    metric: str, scores: ProbeScores, y: Tensor, weights: Num[Tensor, "sample example"], groups: int
) -> HeldOutScores:
    """Score probes on held-out examples; the probes may be fitted at another checkpoint or on another concept.

    Args:
        weights: Resamples of the groups, from `bootstrap.group_weights`.
        groups: Number of groups.
    """
    value, samples = score(metric, scores, y), bootstrap_scores(metric, scores, y, weights)
    return HeldOutScores(value, samples, _told_interval(metric, score_interval(metric, value, samples, groups), y))
