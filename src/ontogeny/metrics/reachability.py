"""Reachability of unseen pairs: does a model accept valid pairs of an entity and a property that never occurred? Source: arXiv:2408.12578.

`pairs` says of each pair whether it occurs (2), is valid and does not occur (1), or is not valid (0). Which of the unseen pairs the seen
ones connect is a property of the data: `ontogeny.statistics.percolation.connected_share`.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.metrics import Metric

_SLACK = 1.5


def accepted_share(
    scores: Float[Tensor, "*batch entity property"], pairs: Int[Tensor, "entity property"], *, slack: float = _SLACK
) -> Float[Tensor, "*batch"]:
    """Share of the unseen valid pairs whose rank among the entity's properties is at most `slack` times its number of valid ones.

    By chance it is about `slack` times the share of properties that are valid. NaN without unseen valid pairs.

    Args:
        scores: Any increasing function of the probability of each property.

    Raises:
        BadInput: scores that do not match the pairs, or a slack below 1.
    """
    unseen = _check_pairs(scores, pairs)
    if not slack >= 1:
        raise BadInput(f"`slack` must be at least 1, so that all valid properties fit, got {slack}.")
    ascending, own = scores.sort(dim=-1).values.contiguous(), scores.contiguous()
    ends = [torch.searchsorted(ascending, own, right=right) for right in (False, True)]
    rank = scores.shape[-1] - (ends[0] + ends[1] - 1) / 2  # the mean over ties
    fits = (rank <= slack * (pairs > 0).sum(1, keepdim=True)).double()
    return _where_known(scores, (fits * unseen).sum((-1, -2)) / unseen.sum())


def valid_mass(
    logits: Float[Tensor, "*batch entity property"], pairs: Int[Tensor, "entity property"]
) -> Float[Tensor, "*batch"]:
    """Of the probability on properties that never occur with the entity, the share on valid ones; mean over entities with both kinds.

    Uniform scores give the share of valid ones among the unseen. NaN if no entity has both.
    """
    unseen = _check_pairs(logits, pairs)
    wrong = pairs == 0
    both = unseen.any(1) & wrong.any(1)
    masses = [logits.double().where(mask, -torch.inf).logsumexp(-1)[..., both] for mask in (unseen, wrong)]
    return _where_known(logits, (masses[0] - masses[1]).sigmoid().mean(-1))


def _check_pairs(scores: Tensor, pairs: Tensor) -> Bool[Tensor, "entity property"]:
    if scores.shape[-2:] != pairs.shape:
        raise BadInput(
            f"`pairs` must have one entry per score, got {tuple(pairs.shape)} for {tuple(scores.shape[-2:])}."
        )
    if not ((pairs >= 0) & (pairs <= 2)).all():
        raise BadInput("`pairs` must be 0 (not valid), 1 (valid, unseen) or 2 (seen) for each pair.")
    return pairs == 1


def _where_known(scores: Tensor, value: Tensor) -> Tensor:
    return value.where(scores.isfinite().all(-1).all(-1), torch.nan).to(scores.dtype)


metrics = (
    Metric(
        "accepted_share", accepted_share, "scores, pairs", 0.0, 1.0, frozenset({"permutation", "monotone"}),
        "scipy.stats.rankdata",
    ),
    Metric("valid_mass", valid_mass, "scores, pairs", 0.0, 1.0, frozenset({"permutation"}), "scipy.special.softmax"),
)  # fmt: skip
