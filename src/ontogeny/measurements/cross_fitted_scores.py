"""Out-of-fold scores and the intervals of their metrics: one rule for probes and for surface baselines."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ontogeny.metrics import separability
from ontogeny.statistics import cross_fitting
from ontogeny.statistics.bootstrap import Interval
from ontogeny.statistics.cross_fitting import CrossFitScore, GroupPairs, GroupVariance


@dataclass(frozen=True, eq=False)
class CrossFittedScores:
    """Scores of examples, each by the probe that was fitted on the other folds; the metrics are computed once."""

    values: Float[Tensor, "site example k"]
    y: Tensor
    folds: Int[Tensor, " example"]
    groups: Int[Tensor, " example"]
    width: int
    """Dimensions of what the probe was fitted on."""
    method: str = ""
    """The probe, if one of those whose fits settle soon."""
    pairs: GroupPairs | None = None
    """Those of the labels, folds and groups, if known."""

    @property
    def main_metric(self) -> str:
        """The metric whose value tells how much the fits add to a variance."""
        return "r2" if self.y.is_floating_point() else "auroc"

    @cached_property
    def main(self) -> CrossFitScore:
        """The main metric at each site."""
        if self.main_metric == "r2":
            return cross_fitting.cross_fit_r2(self.values[..., 0], self.y)
        if self.y.dtype == torch.bool:
            return cross_fitting.cross_fit_auroc(self.values[..., 0], self.y, self.folds, self.groups)
        return cross_fitting.cross_fit_macro_auroc(self.values, self.y, self.folds, self.groups)

    @cached_property
    def fit_share(self) -> Float[Tensor, " site"]:
        """Variance of a mean over examples by the training groups, as a share of that by the test groups."""
        return cross_fitting.fit_variance_share(
            self.main.value.nan_to_num(0.5), share=self.main_metric != "r2", examples=len(self.y), width=self.width
        )

    def score(self, metric: str) -> CrossFitScore:
        """The main metric, or the accuracy."""
        if metric == self.main_metric:
            return self.main
        return cross_fitting.cross_fit_mean(separability.correct(self.values, self.y))

    def interval(self, metric: str) -> Interval:
        """95 % interval over test groups and fits."""
        score = self.score(metric)
        if self._knows_pairs(metric):
            variance, fits = self._auroc_variance, torch.zeros_like(score.influence[:, 0])
        else:
            strata = self.y if metric == "auroc" else None
            variance, fits = cross_fitting.group_variance(score.influence, self.groups, strata), self.fit_share
        return cross_fitting.cross_fit_interval(score.value, variance, fits, share=metric != "r2")

    def samples(self, metric: str, weights: Num[Tensor, "sample example"]) -> Float[Tensor, "sample site"]:
        """The metric on resamples of the groups, which spread by the fits as well.

        Args:
            weights: From `bootstrap.group_weights`.
        """
        score, fits = self.score(metric), self.fit_share
        if self._knows_pairs(metric):
            fits = cross_fitting.resample_share(self._auroc_variance, score, self.groups)
        return cross_fitting.cross_fit_samples(score, weights, fits, share=metric != "r2")

    def excess(self, other: "CrossFittedScores") -> tuple[Float[Tensor, " site"], Interval]:
        """The main metric minus that of other scores of the same examples, with its interval.

        Args:
            other: Of as many sites, or of one that all are compared with.
        """
        value = self.main.value - other.main.value
        strata = self.y if self.main_metric == "auroc" else None
        variance = cross_fitting.group_variance(self.main.influence - other.main.influence, self.groups, strata)
        fits = torch.maximum(self.fit_share, other.fit_share)
        return value, cross_fitting.cross_fit_interval(value, variance, fits, share=False)

    def _knows_pairs(self, metric: str) -> bool:
        """Whether the metric is an AUROC of two classes, whose variance takes the pairs of groups into account."""
        return metric == "auroc" and self.y.dtype == torch.bool

    @cached_property
    def _auroc_variance(self) -> GroupVariance:
        return cross_fitting.auroc_variance(
            self.values[..., 0],
            self.main,
            self.y,
            self.folds,
            self.groups,
            method=self.method,
            pairs=self.pairs,
        )
