"""Scores of a probe by the kind of its target: point, bootstrap and permutation null of each metric."""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ontogeny.metrics import separability
from ontogeny.statistics import bootstrap, permutation
from ontogeny.statistics.bootstrap import Interval

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
    metric: str, scores: ProbeScores, y: Tensor, weights: Float[Tensor, "sample example"]
) -> Float[Tensor, "sample site"]:
    """The metric at every site on every resample of the groups."""
    if metric == "r2":
        return bootstrap.r2_samples(scores[..., 0], y, weights)
    if metric == "accuracy":
        return bootstrap.mean_samples(correct(scores, y), weights)
    if y.dtype == torch.bool:
        return bootstrap.auroc_samples(scores[..., 0], y, weights)
    return bootstrap.macro_auroc_samples(scores, y, weights)


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
    metric: str, scores: ProbeScores, y: Tensor, weights: Float[Tensor, "sample example"], groups: int
) -> HeldOutScores:
    """Score probes on held-out examples; the probes may be fitted at another checkpoint or on another concept.

    Args:
        weights: Resamples of the groups, from `bootstrap.group_weights`.
        groups: Number of groups.
    """
    value, samples = score(metric, scores, y), bootstrap_scores(metric, scores, y, weights)
    return HeldOutScores(value, samples, score_interval(metric, value, samples, groups))


def correct(scores: ProbeScores, y: Tensor) -> Float[Tensor, "site example"]:
    """1 if an example is classified correctly."""
    right = (scores[..., 0] > 0) == y if y.dtype == torch.bool else scores.argmax(-1) == y
    return right.float()
