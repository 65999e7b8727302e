"""Separability of scores: AUROC, accuracy, explained variance, Fisher's ratio, TPR at a fixed FPR."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.metrics import Metric
from ontogeny.statistics.permutation import average_ranks


def auroc(scores: Float[Tensor, "*batch example"], y: Bool[Tensor, " example"]) -> Float[Tensor, "*batch"]:
    """Area under the ROC curve: probability that a positive scores above a negative, ties ½; invariant to increasing maps.

    NaN if a score is NaN or a class is missing. Source: the Mann–Whitney statistic, Hanley & McNeil 1982.
    """
    _rows(scores, y)
    positive, negative = int(y.sum()), int((~y).sum())
    if positive == 0 or negative == 0:
        return scores.new_full(scores.shape[:-1], torch.nan)
    above = average_ranks(scores)[..., y].sum(-1) - positive * (positive + 1) / 2
    return torch.where(scores.isnan().any(-1), torch.nan, above / (positive * negative)).to(scores.dtype)


def macro_auroc(scores: Float[Tensor, "*batch example k"], y: Int[Tensor, " example"]) -> Float[Tensor, "*batch"]:
    """Mean over the classes of the AUROC of that class against the rest, in [0, 1]; NaN if a class is missing."""
    return torch.stack([auroc(scores[..., c], y == c) for c in range(scores.shape[-1])]).mean(0)


def accuracy(scores: Float[Tensor, "*batch example k"], y: Tensor) -> Float[Tensor, "*batch"]:
    """Share of correct predictions: the score above 0 for a bool label, else the largest column; NaN for NaN scores."""
    if (scores.shape[-1] == 1) != (y.dtype == torch.bool):
        raise BadInput(
            f"accuracy needs one score column for bool labels and one per class otherwise, got {scores.shape[-1]} for {y.dtype}."
        )
    _rows(scores[..., 0], y)
    right = correct(scores, y)
    return torch.where(scores.isnan().any(-1).any(-1), torch.nan, right.to(scores.dtype).mean(-1))


def correct(scores: Float[Tensor, "*batch example k"], y: Tensor) -> Float[Tensor, "*batch example"]:
    """1 if an example is classified correctly, else 0."""
    right = (scores[..., 0] > 0) == y if y.dtype == torch.bool else scores.argmax(-1) == y
    return right.float()


def r2(scores: Float[Tensor, "*batch example"], y: Float[Tensor, " example"]) -> Float[Tensor, "*batch"]:
    """Explained share of the variance of y, at most 1; below 0 if the mean predicts better; NaN for constant y."""
    _rows(scores, y)
    total = (y - y.mean()).double().square().sum()
    residual = (scores.double() - y).square().sum(-1)
    return torch.where(total > 0, 1 - residual / total, torch.nan).to(scores.dtype)


def fisher(scores: Float[Tensor, "*batch example"], y: Bool[Tensor, " example"]) -> Float[Tensor, "*batch"]:
    """Squared distance of the class means over the pooled variance, ≥ 0, invariant to scale and shift; NaN without variance.

    Source: R. A. Fisher 1936; its square root is the d′ of signal detection for equal variances.
    """
    _rows(scores, y)
    if y.sum() < 2 or (~y).sum() < 2:
        return scores.new_full(scores.shape[:-1], torch.nan)
    wide = scores.double()
    a, b = wide[..., y], wide[..., ~y]
    inside = (a - a.mean(-1, keepdim=True)).square().sum(-1) + (b - b.mean(-1, keepdim=True)).square().sum(-1)
    pooled = inside / (len(y) - 2)
    gap = a.mean(-1) - b.mean(-1)
    return torch.where(pooled > 0, gap.square() / pooled, torch.nan).to(scores.dtype)


def tpr_at_fpr(
    scores: Float[Tensor, "*batch example"], y: Bool[Tensor, " example"], fpr: float
) -> Float[Tensor, "*batch"]:
    """True-positive rate at the lowest threshold with a false-positive rate of at most `fpr`.

    NaN if a score is NaN, a class is missing, or there are fewer than 1 / fpr negatives.
    """
    _rows(scores, y)
    negatives = int((~y).sum())
    if not y.any() or negatives == 0 or not resolves_fpr(negatives, fpr):
        return scores.new_full(scores.shape[:-1], torch.nan)
    above = scores[..., y] > threshold_at_fpr(scores[..., ~y], fpr)[..., None]
    return torch.where(scores.isnan().any(-1), torch.nan, above.to(scores.dtype).mean(-1))


def threshold_at_fpr(negatives: Float[Tensor, "*batch negative"], fpr: float) -> Float[Tensor, "*batch"]:
    """Lowest of these scores with at most a share `fpr` of them above it."""
    allowed = math.floor(fpr * negatives.shape[-1] + 1e-9)
    return negatives.topk(min(allowed + 1, negatives.shape[-1]), dim=-1).values[..., -1]


def calibrated_fpr(negatives: int, fpr: float) -> float:
    """Share of this number of held-out negatives above the threshold that a new negative exceeds with probability `fpr` at most.

    A new score lies above the (k + 1)-th largest of n with probability (k + 1) / (n + 1) (conformal prediction, arXiv:2107.07511).
    """
    return max(0, math.floor(fpr * (negatives + 1) + 1e-9) - 1) / negatives


def resolves_fpr(negatives: int, fpr: float) -> bool:
    """Whether this number of negatives resolves the rate: at least one may be above the threshold."""
    return negatives * fpr >= 1 - 1e-9


def _rows(scores: Tensor, y: Tensor) -> None:
    if scores.shape[-1:] != y.shape or len(y) == 0:
        raise BadInput(
            f"metrics need one target per score and at least one, got {scores.shape[-1]} scores and targets of shape {tuple(y.shape)}."
        )


_RANKS, _ARGMAX = frozenset({"monotone", "permutation"}), frozenset({"positive_scale", "shift", "permutation"})
_ORDER, _AFFINE = frozenset({"permutation"}), frozenset({"affine", "permutation"})
metrics = (
    Metric("auroc", auroc, "scores, labels", 0.0, 1.0, _RANKS, "sklearn.metrics.roc_auc_score"),
    Metric("macro_auroc", macro_auroc, "scores, classes", 0.0, 1.0, _RANKS, "sklearn.metrics.roc_auc_score"),
    Metric("accuracy", accuracy, "scores, classes", 0.0, 1.0, _ARGMAX, "sklearn.metrics.accuracy_score"),
    Metric("r2", r2, "scores, numbers", None, 1.0, _ORDER, "sklearn.metrics.r2_score"),
    Metric("fisher", fisher, "scores, labels", 0.0, None, _AFFINE, "squared t over n of scipy.stats.ttest_ind"),
)
