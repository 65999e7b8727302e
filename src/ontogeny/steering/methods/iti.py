"""Inference-time intervention: the heads whose probes read a concept best are shifted along it (arXiv:2306.03341).

Heads are ranked by probes on folds of groups, so that no question is on both sides; at alpha 1 a head is shifted by the spread of its
projections.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.probes import logistic
from ontogeny.statistics.splits import group_folds
from ontogeny.steering.methods import SteeringVectors, TrainingActivations, head_shifts
from ontogeny.steering.token_selection import TokenSelection

part = "head"
choice_axis = "k"
needs_pairs = False
is_ablation = False


def head_accuracy(
    x: Float[Tensor, "site example d"],
    y: Bool[Tensor, " example"],
    groups: Int[Tensor, " example"],
    *,
    folds: int = 5,
    seed: int = 0,
) -> Float[Tensor, " site"]:
    """Accuracy of a logistic probe of each head on folds of groups."""
    fold = group_folds(groups, y, "binary", k=folds, seed=seed)
    correct = torch.zeros(len(x), dtype=torch.float64)
    for k in range(folds):
        out = fold == k
        probe = logistic.fit(x[:, ~out], y[~out], groups=groups[~out], seed=seed)
        correct += ((probe.scores(x[:, out])[..., 0] > 0) == y[out]).double().sum(1)
    return correct / len(y)


def fit(
    data: TrainingActivations, *, ks: Sequence[int] = (1, 2, 4, 8), where: TokenSelection = "last"
) -> SteeringVectors:
    """For each k, the k heads with the most accurate probes and their shifts.

    Raises:
        BadInput: a k below 1 or above the number of heads.
    """
    heads, x = data.sites["head"], data.activations["head"]
    if not ks or min(ks) < 1 or max(ks) > len(heads):
        raise BadInput(f"`ks` must be between 1 and {len(heads)}, the heads of this model, got {[*ks]}.")
    accuracy = head_accuracy(x, data.y, data.groups)
    best = accuracy.argsort(descending=True, stable=True)[: max(ks)].tolist()
    shifts = head_shifts(data, best)
    return SteeringVectors("iti", choice_axis, {str(k): tuple(shifts[:k]) for k in ks}, where)
