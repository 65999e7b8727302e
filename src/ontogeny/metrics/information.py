"""Information in nats, as far as a probe can vouch for it, and what an accuracy implies.

The entropy of the labels less the cross-entropy of any probe on held-out examples is a lower bound on the mutual information of
activations and label. Sources: Barber & Agakov 2003; McAllester & Stratos, arXiv:1811.04251 (why more than a bound is not to be had).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.metrics import Metric


def nats_bound(scores: Float[Tensor, "*batch example k"], y: Tensor) -> Float[Tensor, "*batch"]:
    """H(Y) − cross-entropy of held-out log-odds (k = 1, bool y) or class scores, at most ln of the number of classes.

    Below 0 for a probe that is worse than knowing the class shares; NaN for NaN scores or one class.
    """
    return nats_contributions(scores, y).mean(-1)


def nats_contributions(scores: Float[Tensor, "*batch example k"], y: Tensor) -> Float[Tensor, "*batch example"]:
    """What each example adds: log q(y|x) − log of its class's share. Their mean is `nats_bound`, a weighted mean its bootstrap."""
    if (scores.shape[-1] == 1) != (y.dtype == torch.bool) or scores.shape[-2:-1] != y.shape or len(y) == 0:
        raise BadInput(
            f"nats_bound was given scores {tuple(scores.shape)} for {len(y)} {y.dtype} labels. Give 1 column for bool, k for classes."
        )
    wide = scores.double()
    if y.dtype == torch.bool:
        log_q = torch.nn.functional.logsigmoid(torch.where(y, wide[..., 0], -wide[..., 0]))
        count = torch.stack([(~y).sum(), y.sum()])
        log_share = (count.double() / len(y)).log()[y.long()]
    else:
        if int(y.min()) < 0 or int(y.max()) >= scores.shape[-1]:
            raise BadInput(
                f"class indices from {int(y.min())} to {int(y.max())} for {scores.shape[-1]} columns of scores."
            )
        log_q = wide.log_softmax(-1).gather(-1, y.expand(wide.shape[:-1])[..., None])[..., 0]
        count = torch.bincount(y, minlength=scores.shape[-1])
        log_share = (count.double() / len(y)).log()[y]
    if (count > 0).sum() < 2:
        return torch.full_like(scores[..., 0], torch.nan)
    return (log_q - log_share).to(scores.dtype)


def fano_nats(accuracy: float, classes: int) -> float:
    """Least information (nats) that an accuracy on equally frequent classes implies, in [0, ln classes]; Fano's inequality."""
    if classes < 2 or not 0 <= accuracy <= 1:
        raise BadInput(f"an accuracy of {accuracy} on {classes} classes is none. Give a share and at least 2 classes.")
    if accuracy <= 1 / classes:
        return 0.0
    wrong = 1 - accuracy
    doubt = -accuracy * math.log(accuracy) - (wrong * math.log(wrong) if wrong > 0 else 0.0)
    return math.log(classes) - doubt - wrong * math.log(classes - 1)


@dataclass(frozen=True)
class DependenceBound:
    """Over the cells that could be measured: how often the dependence stays below the accuracy, and what that says."""

    share: float
    n: int
    verdict: str


def dependence_within_accuracy(nhsic_ty: Float[Tensor, "*cell"], accuracy: Float[Tensor, "*cell"]) -> DependenceBound:
    """The claim of arXiv:2402.19465 that the label dependence bounds the probe from below, cell by cell.

    It is weak for balanced labels, whose dependence is at most .909 by construction: the verdict is about the counted cells only.
    """
    both = nhsic_ty.isfinite() & accuracy.isfinite()
    n = int(both.sum())
    if n == 0:
        return DependenceBound(math.nan, 0, "not measured: no cell has both a dependence and an accuracy")
    within = int((nhsic_ty[both] <= accuracy[both]).sum())
    if within == n:
        return DependenceBound(1.0, n, f"held: in all {n} cells the dependence is at most the accuracy")
    excess = float((nhsic_ty - accuracy)[both].max())
    return DependenceBound(
        within / n,
        n,
        f"did not hold: in {n - within} of {n} cells the dependence exceeds the accuracy, by up to {excess:.3f}",
    )


metrics = (
    Metric(
        "nats_bound",
        nats_bound,
        "scores, classes",
        None,
        None,
        frozenset({"permutation", "shift"}),
        "sklearn.metrics.log_loss",
    ),
)
