"""Lower bound in nats on the information about the label in the activations, from a probe.

The entropy of the labels minus the cross-entropy of a probe on held-out examples is a lower bound on the mutual information of
activations and label. Sources: Barber & Agakov 2003; McAllester & Stratos, arXiv:1811.04251 (only bounds can be estimated).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.metrics import Metric


def nats_bound(scores: Float[Tensor, "*batch example k"], y: Tensor) -> Float[Tensor, "*batch"]:
    """H(Y) − cross-entropy of held-out log-odds (k = 1, bool y) or class scores; at most ln of the number of classes.

    Below 0 for a probe worse than the class shares; NaN for NaN scores or a single class.
    """
    return nats_contributions(scores, y).mean(-1)


def nats_contributions(scores: Float[Tensor, "*batch example k"], y: Tensor) -> Float[Tensor, "*batch example"]:
    """Contribution of each example, log q(y|x) − log of its class's share; `nats_bound` is the mean."""
    if (scores.shape[-1] == 1) != (y.dtype == torch.bool) or scores.shape[-2:-1] != y.shape or len(y) == 0:
        raise BadInput(
            f"nats_bound needs one score column for bool labels and one per class otherwise, got {tuple(scores.shape)} scores for "
            f"{len(y)} {y.dtype} labels."
        )
    wide = scores.double()
    if y.dtype == torch.bool:
        log_q = torch.nn.functional.logsigmoid(torch.where(y, wide[..., 0], -wide[..., 0]))
        count = torch.stack([(~y).sum(), y.sum()])
        log_share = (count.double() / len(y)).log()[y.long()]
    else:
        if int(y.min()) < 0 or int(y.max()) >= scores.shape[-1]:
            raise BadInput(
                f"class indices must be from 0 to {scores.shape[-1] - 1}, got {int(y.min())} to {int(y.max())}."
            )
        log_q = wide.log_softmax(-1).gather(-1, y.expand(wide.shape[:-1])[..., None])[..., 0]
        count = torch.bincount(y, minlength=scores.shape[-1])
        log_share = (count.double() / len(y)).log()[y]
    if (count > 0).sum() < 2:
        return torch.full_like(scores[..., 0], torch.nan)
    return (log_q - log_share).to(scores.dtype)


@dataclass(frozen=True)
class DependenceBound:
    """Share of the measured cells in which the dependence is at most the accuracy, with a verdict."""

    share: float
    n: int
    verdict: str


def dependence_within_accuracy(nhsic_ty: Float[Tensor, "*cell"], accuracy: Float[Tensor, "*cell"]) -> DependenceBound:
    """Test of the claim of arXiv:2402.19465 that the label dependence is a lower bound of the probe accuracy, in each cell.

    The claim is weak for balanced labels, whose dependence is at most .909 by construction.
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


_INVARIANCES = frozenset({"permutation", "shift"})
metrics = (Metric("nats_bound", nats_bound, "scores, classes", None, None, _INVARIANCES, "sklearn.metrics.log_loss"),)
