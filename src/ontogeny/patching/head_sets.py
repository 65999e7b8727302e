"""Ablation of a set of heads, against as large random sets of heads as the null (arXiv:2504.14379 has three heads and no null).

Heads are zeroed at the last token of the prompt and the generated ones, or at all. The effect is the change of a score of each example;
its null are the effects of random sets, drawn among all heads or with as many heads in each layer.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.interventions import Zero
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.statistics.nulls import null_interval, null_p_value
from ontogeny.steering.steer import Edit
from ontogeny.steering.token_selection import TokenSelection

Heads = Sequence[tuple[int, int]]
"""(layer, head): layers from 1, heads from 0."""
ScoreUnderEdits = Callable[[Sequence[Edit]], Float[Tensor, " example"]]
"""A score of each example under edits, such as the margin between two answers."""


@dataclass(frozen=True, eq=False)
class SetEffect:
    """The effect of an ablation on a score, and those of random ones."""

    change: Float[Tensor, " example"]
    """Score with the ablation minus without it."""
    null: Float[Tensor, " set"]
    """Mean change of each random set."""

    @property
    def effect(self) -> float:
        """Mean change."""
        return float(self.change.double().mean())

    @property
    def null_range(self) -> tuple[float, float]:
        """2.5 and 97.5 % quantiles of the random sets."""
        return null_interval(self.null)

    @property
    def p(self) -> float:
        """Two-sided p against the random sets."""
        return null_p_value(self.effect, self.null)


@dataclass(frozen=True, eq=False)
class HeadSetEffect(SetEffect):
    """The effect of ablating a set of heads."""

    heads: tuple[tuple[int, int], ...]
    every: bool
    """Whether the null has every other set of as many heads, since the model has no more than were asked for."""


def zeroed_heads(heads: Heads, where: TokenSelection = "last") -> list[Edit]:
    """Edits that zero the heads."""
    return [Edit(Site("head", layer, head), Zero(), where) for layer, head in heads]


def ablate_head_set(
    model: Model,
    heads: Heads,
    score: ScoreUnderEdits,
    *,
    sets: int = 100,
    same_layers: bool = False,
    where: TokenSelection = "last",
    seed: int = 0,
) -> HeadSetEffect:
    """Ablate the heads together, and as many random ones, `sets` times.

    Args:
        score: Called with the edits; it scores the same examples each time.
        sets: Random sets, all different; none of them is the set itself. Where there are no more, every other set is taken.
        same_layers: Draw as many heads from each layer as the set has there, in place of any heads.

    Raises:
        BadInput: no heads, a head twice or one that the model does not have, or fewer other sets of heads than two.
    """
    chosen = tuple(sorted((int(layer), int(head)) for layer, head in heads))
    if not chosen or len(set(chosen)) < len(chosen):
        raise BadInput(f"`heads` must be different heads, at least one, got {list(heads)[:6]}: name each once.")
    if odd := [one for one in chosen if not (1 <= one[0] <= model.layers and 0 <= one[1] < model.heads)]:
        raise BadInput(
            f"`heads` must be heads of {model.layers} layers (from 1) of {model.heads} heads (from 0), got {odd[0]}: name others."
        )
    if sets < 2:
        raise BadInput(f"`sets` must be at least 2, got {sets}: a null needs many, such as 100.")
    plain = score([])
    change = score(zeroed_heads(chosen, where)) - plain
    drawn = random_head_sets(model, chosen, sets, same_layers=same_layers, seed=seed)
    null = torch.stack([(score(zeroed_heads(one, where)) - plain).double().mean() for one in drawn])
    return HeadSetEffect(change, null, chosen, len(drawn) == count_head_sets(model, chosen, same_layers) - 1)


def count_head_sets(model: Model, heads: Heads, same_layers: bool = False) -> int:
    """Number of sets of as many heads as these, or of as many in each layer."""
    if not same_layers:
        return math.comb(model.layers * model.heads, len(heads))
    return math.prod(math.comb(model.heads, count) for count in Counter(layer for layer, _ in heads).values())


def random_head_sets(
    model: Model, heads: Heads, sets: int, *, same_layers: bool = False, seed: int = 0
) -> list[tuple[tuple[int, int], ...]]:
    """Different random sets of as many heads, none of which is the set itself; every such set if there are no more than `sets`.

    Raises:
        BadInput: the model has no other set of as many heads.
    """
    own = tuple(sorted(heads))
    others = count_head_sets(model, own, same_layers) - 1
    if not others:
        raise BadInput(f"there must be other sets of {len(own)} heads, this model has none: name fewer heads.")
    per_layer = Counter(layer for layer, _ in own)
    everything = [(layer, head) for layer in range(1, model.layers + 1) for head in range(model.heads)]
    if others <= sets:
        whole = itertools.combinations(everything, len(own))
        return [one for one in whole if one != own and (not same_layers or Counter(a for a, _ in one) == per_layer)]
    generator, drawn = torch.Generator().manual_seed(seed), dict.fromkeys([own])
    while len(drawn) <= sets:
        if same_layers:
            one = [
                (layer, int(h))
                for layer, n in per_layer.items()
                for h in torch.randperm(model.heads, generator=generator)[:n]
            ]
        else:
            one = [everything[int(i)] for i in torch.randperm(len(everything), generator=generator)[: len(own)]]
        drawn[tuple(sorted(one))] = None
    return list(drawn)[1:]
