"""Promote and suppress: nats per token gained and lost where the unsteered model needs it most (arXiv:2410.17245)."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.statistics import bootstrap
from ontogeny.statistics.splits import number_groups

_WEIGHT_QUANTILES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class PromoteSuppress:
    """Effect of steering on the share of items where the unsteered model needs it most."""

    share: float
    promote: tuple[float, float, float]
    """Mean gain of matching items, nats per token, with its 95 % interval."""
    suppress: tuple[float, float, float]
    """Mean loss of the others."""


def promote_suppress(
    base: Float[Tensor, " item"],
    steered: Float[Tensor, " item"],
    matching: Bool[Tensor, " item"],
    prompts: Sequence[Hashable],
    *,
    shares: Sequence[float] = _WEIGHT_QUANTILES,
    samples: int = 1000,
    seed: int = 0,
) -> list[PromoteSuppress]:
    """Gains and losses in nats per token at each share, with intervals by paired resampling of prompts.

    Matching items are ordered from the least likely, the others from the likeliest, so that ceilings are left out.

    Raises:
        BadInput: all items match, or none does.
    """
    if matching.all() or not matching.any():
        raise BadInput(
            "promote and suppress need items that match the behaviour and items that do not, got one kind: add the other."
        )
    groups = number_groups(prompts)
    weights = bootstrap.group_weights(groups, samples=samples, seed=seed).double()
    weights = torch.cat([torch.ones(1, len(base), dtype=torch.float64), weights])
    gain = (steered - base).double()
    results = []
    for share in shares:
        sides = []
        for side, sign in ((matching, 1.0), (~matching, -1.0)):
            order = (sign * base[side]).argsort()
            mean = _mean_of_first((sign * gain[side])[order], weights[:, side][:, order], share)
            ends = bootstrap.percentile_interval(mean[0], mean[1:], groups=int(groups.max()) + 1)
            sides.append((float(mean[0]), float(ends.low), float(ends.high)))
        results.append(PromoteSuppress(share, *sides))
    return results


def _mean_of_first(
    values: Float[Tensor, " item"], weights: Float[Tensor, "sample item"], share: float
) -> Float[Tensor, " sample"]:
    """Mean over the first share of the weight; an item on the edge counts in part."""
    wanted = share * weights.sum(1, keepdim=True)
    counted = torch.minimum(weights, (wanted - (weights.cumsum(1) - weights)).clamp(min=0))
    return (counted @ values) / counted.sum(1)
