"""Inference-time intervention as its authors' code does it: likenneth/honest_llama @ 2c6b217, centre-of-mass directions (arXiv:2306.03341).

It differs from `iti` in three points: one split into training and validation groups in place of folds; a logistic probe with C = 1 on
activations as they are, in place of standardised ones with a chosen strength; ties between heads go to the later head; the
directions are the same. Given the same split, heads and vectors equal those of that code. The probes are scikit-learn's, since a
converged solver ranks the heads otherwise where their accuracies differ by one row; that takes some milliseconds a head.
"""

import random
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.errors import BadInput, SingleClassError
from ontogeny.steering.methods import SteeringVectors, TrainingActivations, head_shifts
from ontogeny.steering.token_selection import TokenSelection

part = "head"
choice_axis = "k"
needs_pairs = False
is_ablation = False
is_scale_free = False
"""C = 1 on raw activations shrinks more where they are small."""

_VALIDATION_SHARE = 0.2
_SEED = 42
"""The seed of that code; its random numbers are numpy's, so that its split is not this one."""


def fit(
    data: TrainingActivations,
    *,
    ks: Sequence[int] = (48,),
    where: TokenSelection = "last",
    validation: Bool[Tensor, " example"] | None = None,
) -> SteeringVectors:
    """For each k, the k heads whose probes are the most accurate on the validation rows, and their shifts.

    Args:
        validation: Rows on which the heads are ranked; by default those of a fifth of the groups.

    Raises:
        BadInput: a k below 1 or above the number of heads, or a side of the split with one class.
    """
    heads, x = data.sites["head"], data.activations["head"]
    if not ks or min(ks) < 1 or max(ks) > len(heads):
        raise BadInput(f"`ks` must be between 1 and {len(heads)}, the heads of this model, got {[*ks]}.")
    held_out = _validation_rows(data) if validation is None else validation
    accuracy = _validation_accuracy(x, data.y, held_out)
    # The order of numpy's sort, read backwards: of equal heads the later one comes first.
    best = accuracy.numpy().argsort()[::-1][: max(ks)].tolist()
    shifts = head_shifts(data, best)
    return SteeringVectors("iti_official", choice_axis, {str(k): tuple(shifts[:k]) for k in ks}, where)


def _validation_accuracy(
    x: Float[Tensor, "site example d"], y: Bool[Tensor, " example"], validation: Bool[Tensor, " example"]
) -> Float[Tensor, " site"]:
    """Accuracy on the validation rows of a probe of each head, fitted on the other rows."""
    from sklearn.linear_model import LogisticRegression

    label = y[~validation]
    if label.all() or not label.any() or not validation.any():
        raise SingleClassError("a probe of a head", n=len(label), label=bool(label.any()))
    values, inside, classes = x.cpu().numpy(), validation.cpu().numpy(), y.cpu().numpy()
    accuracy = []
    for head in values:
        probe = LogisticRegression(max_iter=1000).fit(head[~inside], classes[~inside])
        accuracy.append(float((probe.predict(head[inside]) == classes[inside]).mean()))
    return torch.tensor(accuracy, dtype=torch.float64)


def _validation_rows(data: TrainingActivations) -> Bool[Tensor, " example"]:
    names = sorted(set(data.groups.tolist()))
    random.Random(_SEED).shuffle(names)
    count = len(names) - int(len(names) * (1 - _VALIDATION_SHARE))
    return torch.isin(data.groups, torch.tensor(names[:count]))
