"""Inference-time intervention: the heads whose probes read a concept best are shifted along it (arXiv:2306.03341).

Heads are ranked by probes on folds of groups, so that no question is on both sides; the shift of a head is alpha times the spread of its
projections, at the last token of the prompt and at each that is generated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.direction import random_unit_vector
from ontogeny.errors import BadInput, unknown_name
from ontogeny.interventions import Add
from ontogeny.probes import logistic, mass_mean
from ontogeny.sites import Site
from ontogeny.statistics.splits import group_folds
from ontogeny.steering.steer import Edit
from ontogeny.steering.token_selection import TokenSelection

HeadDirection = Literal["mass_mean", "probe", "random"]
_HEAD_DIRECTIONS = ("mass_mean", "probe", "random")


@dataclass(frozen=True, eq=False)
class HeadShift:
    """One chosen head."""

    site: Site
    axis: Float[Tensor, " d"]
    """Of length 1, pointing to the positive class."""
    spread: float
    """Standard deviation of the projections."""
    accuracy: float
    """Of the head's probe on the folds that it was not fitted on."""


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
    right = torch.zeros(len(x), dtype=torch.float64)
    for k in range(folds):
        out = fold == k
        probe = logistic.fit(x[:, ~out], y[~out], groups=groups[~out], seed=seed)
        right += ((probe.scores(x[:, out])[..., 0] > 0) == y[out]).double().sum(1)
    return right / len(y)


def iti(
    x: Float[Tensor, "site example d"],
    y: Bool[Tensor, " example"],
    groups: Int[Tensor, " example"],
    sites: Sequence[Site],
    *,
    k: int,
    kind: HeadDirection = "mass_mean",
    folds: int = 5,
    seed: int = 0,
) -> list[HeadShift]:
    """The k heads that are read best, and their shifts; all from these rows, so alpha and k are chosen on others.

    Raises:
        BadInput: more heads wanted than there are, or sites that are no heads.
    """
    if kind not in _HEAD_DIRECTIONS:
        raise unknown_name("kind of direction", kind, _HEAD_DIRECTIONS)
    if not 1 <= k <= len(sites) or any(site.part != "head" for site in sites):
        raise BadInput(
            f"{k} heads cannot be chosen among {len(sites)} sites ({sites[0] if sites else 'none'} …). Give heads, and fewer."
        )
    accuracy = head_accuracy(x, y, groups, folds=folds, seed=seed)
    chosen = accuracy.argsort(descending=True, stable=True)[:k].tolist()
    axes = _axes(x[chosen], y, groups, kind, seed)
    spread = (x[chosen].double() @ axes[..., None].double())[..., 0].std(1)
    return [
        HeadShift(sites[i], axis, float(std), float(accuracy[i]))
        for i, axis, std in zip(chosen, axes, spread, strict=True)
    ]


def _axes(x: Tensor, y: Tensor, groups: Tensor, kind: HeadDirection, seed: int) -> Float[Tensor, "site d"]:
    if kind == "random":
        return torch.stack([random_unit_vector(x.shape[2], seed * 1000 + i) for i in range(len(x))])
    fitted = (mass_mean if kind == "mass_mean" else logistic).fit(x, y, groups=groups, seed=seed)
    vectors = fitted.direction[..., 0]
    return vectors / vectors.norm(dim=1, keepdim=True)


def iti_edits(shifts: Sequence[HeadShift], alpha: float, where: TokenSelection = "last") -> list[Edit]:
    """The shifts as edits; baked into the weights they act at all positions and differ from these."""
    return [Edit(shift.site, Add(shift.axis, alpha * shift.spread), where) for shift in shifts]
