"""How well scores separate what they should: area under the ROC curve, accuracy, explained variance, Fisher's ratio; TPR at a FPR."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.metrics import Metric
from ontogeny.statistics.permutation import average_ranks


def auroc(scores: Float[Tensor, "*batch example"], y: Bool[Tensor, " example"]) -> Float[Tensor, "*batch"]:
    """Chance that a positive scores above a negative, ties ½: in [0, 1], unchanged by any increasing map of the scores.

    NaN where a score is NaN or one class is missing. Source: the Mann–Whitney statistic, Hanley & McNeil 1982.
    """
    _rows(scores, y)
    positive, negative = int(y.sum()), int((~y).sum())
    if positive == 0 or negative == 0:
        return scores.new_full(scores.shape[:-1], torch.nan)
    above = average_ranks(scores)[..., y].sum(-1) - positive * (positive + 1) / 2
    return torch.where(scores.isnan().any(-1), torch.nan, above / (positive * negative)).to(scores.dtype)


def macro_auroc(scores: Float[Tensor, "*batch example k"], y: Int[Tensor, " example"]) -> Float[Tensor, "*batch"]:
    """Mean over the classes of the area for that class against the rest, in [0, 1]; NaN where a class is missing."""
    return torch.stack([auroc(scores[..., c], y == c) for c in range(scores.shape[-1])]).mean(0)


def accuracy(scores: Float[Tensor, "*batch example k"], y: Tensor) -> Float[Tensor, "*batch"]:
    """Share classified right, in [0, 1]: one column above 0 for a bool label, else the largest column; NaN for NaN scores."""
    if (scores.shape[-1] == 1) != (y.dtype == torch.bool):
        raise BadInput(
            f"accuracy was given {scores.shape[-1]} score columns for {y.dtype} labels. Give 1 for bool, k for classes."
        )
    _rows(scores[..., 0], y)
    right = (scores[..., 0] > 0) == y if y.dtype == torch.bool else scores.argmax(-1) == y
    return torch.where(scores.isnan().any(-1).any(-1), torch.nan, right.to(scores.dtype).mean(-1))


def r2(scores: Float[Tensor, "*batch example"], y: Float[Tensor, " example"]) -> Float[Tensor, "*batch"]:
    """Explained share of the variance of y, at most 1; below 0 where the mean predicts better; NaN where y does not vary."""
    _rows(scores, y)
    total = (y - y.mean()).double().square().sum()
    left = (scores.double() - y).square().sum(-1)
    return torch.where(total > 0, 1 - left / total, torch.nan).to(scores.dtype)


def fisher(scores: Float[Tensor, "*batch example"], y: Bool[Tensor, " example"]) -> Float[Tensor, "*batch"]:
    """Squared distance of the class means over the pooled variance, ≥ 0, unchanged by scale and shift; NaN without spread.

    Source: R. A. Fisher 1936; its root is the d′ of signal detection for equal variances.
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
    """Share of positives above the lowest threshold that lets at most the share `fpr` of negatives pass, in [0, 1].

    NaN where a score is NaN, a class is missing, or fewer than 1 / fpr negatives cannot resolve the rate: one of 60 is 1.7 %.
    """
    _rows(scores, y)
    negatives = int((~y).sum())
    if not y.any() or negatives == 0 or not resolves_fpr(negatives, fpr):
        return scores.new_full(scores.shape[:-1], torch.nan)
    above = scores[..., y] > threshold_at_fpr(scores[..., ~y], fpr)[..., None]
    return torch.where(scores.isnan().any(-1), torch.nan, above.to(scores.dtype).mean(-1))


def threshold_at_fpr(negatives: Float[Tensor, "*batch negative"], fpr: float) -> Float[Tensor, "*batch"]:
    """The lowest of these scores with at most the share `fpr` of them above it."""
    allowed = math.floor(fpr * negatives.shape[-1] + 1e-9)
    return negatives.topk(min(allowed + 1, negatives.shape[-1]), dim=-1).values[..., -1]


def resolves_fpr(negatives: int, fpr: float) -> bool:
    """Whether so many negatives can show such a rate: at least one of them may pass."""
    return negatives * fpr >= 1 - 1e-9


def _rows(scores: Tensor, y: Tensor) -> None:
    if scores.shape[-1:] != y.shape or len(y) == 0:
        raise BadInput(
            f"{scores.shape[-1]} scores for targets of shape {tuple(y.shape)}. Give one target a score, at least one."
        )


metrics = (
    Metric(
        "auroc",
        auroc,
        "scores, labels",
        0.0,
        1.0,
        frozenset({"monotone", "permutation"}),
        "sklearn.metrics.roc_auc_score",
    ),
    Metric(
        "macro_auroc",
        macro_auroc,
        "scores, classes",
        0.0,
        1.0,
        frozenset({"monotone", "permutation"}),
        "roc_auc_score of sklearn",
    ),
    Metric(
        "accuracy",
        accuracy,
        "scores, classes",
        0.0,
        1.0,
        frozenset({"positive_scale", "shift", "permutation"}),
        "accuracy_score of sklearn",
    ),
    Metric("r2", r2, "scores, numbers", None, 1.0, frozenset({"permutation"}), "sklearn.metrics.r2_score"),
    Metric(
        "fisher",
        fisher,
        "scores, labels",
        0.0,
        None,
        frozenset({"affine", "permutation"}),
        "squared t over n of scipy.stats.ttest_ind",
    ),
)
