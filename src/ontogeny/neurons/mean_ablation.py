"""Mean ablation of single neurons: change of next-token entropy with the final norm recomputed or frozen (arXiv:2406.16254).

With the norm recomputed the change is the total effect; with its scale frozen it is the direct effect on the logits. An entropy neuron
has a large total effect, most of which goes through the norm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.tokenization import encode_texts
from ontogeny.errors import BadInput
from ontogeny.models.model import Model, output_weight
from ontogeny.neurons.entropy_neurons import (
    WeightProcessing,
    entropy_neuron_candidates,
    final_norm,
    neuron_statistics,
    norm_matched_neurons,
)
from ontogeny.neurons.last_layer_cache import apply_final_norm, cache_last_layer, next_token_entropies, stream_change
from ontogeny.sites import Site


@dataclass(frozen=True, eq=False)
class EntropyEffect:
    """Change of next-token entropy when a neuron is set to its mean: nats, mean over the tokens of each text."""

    neuron: int
    total: Float[Tensor, " text"]
    """Absolute change, final norm recomputed."""
    frozen: Float[Tensor, " text"]
    """Absolute change, scale of the final norm frozen."""
    signed: Float[Tensor, " text"]
    """Signed change, final norm recomputed; negative if the neuron raises the entropy."""

    @property
    def size(self) -> float:
        return float(self.total.mean())

    @property
    def indirect(self) -> float:
        """Share of the effect that goes through the norm; NaN without an effect."""
        return float(1 - self.frozen.mean() / self.total.mean()) if self.size > 0 else float("nan")


@torch.no_grad()
def entropy_effects(
    model: Model, texts: Sequence[str], chosen: Sequence[int], *, tokens: int = 128
) -> list[EntropyEffect]:
    """Effect of each chosen neuron of the last MLP on the first `tokens` tokens of the texts."""
    cache = cache_last_layer(model, first_tokens(model, texts, tokens), chosen)
    plain = next_token_entropies(model, cache.normed)
    norm = final_norm(model)
    straight = norm.straight(cache.stream)
    # The norm's scale at each token, from its output.
    scale = ((cache.normed.double() - norm.bias) * straight).sum(-1) / straight.square().sum(-1)
    rows = output_weight(model, Site("mlp", model.layers))
    effects = []
    for neuron in chosen:
        activation = cache.of([neuron])
        shift = (activation.mean() - activation) * rows[neuron]
        direct = cache.normed + (scale[:, None] * norm.straight(stream_change(model, cache, shift))).to(cache.normed)
        total, frozen = (
            next_token_entropies(model, x) - plain for x in (apply_final_norm(model, cache, shift), direct)
        )
        effects.append(EntropyEffect(neuron, *map(cache.mean, (total.abs(), frozen.abs(), total))))
    return effects


def first_tokens(model: Model, texts: Sequence[str], tokens: int) -> list[Int[Tensor, " token"]]:
    """The first tokens of each text.

    Raises:
        BadInput: no text, or an empty one.
    """
    if not texts:
        raise BadInput("entropy needs texts, got none: give neutral ones.")
    rows = [e.ids[: min(tokens, model.context)] for e in encode_texts(model.tokenizer, texts, [None] * len(texts))]
    if empty := [text for text, ids in zip(texts, rows, strict=True) if not len(ids)]:
        raise BadInput(f"a text must have tokens, got {empty[0]!r}: give it a word.")
    return rows


@dataclass(frozen=True, eq=False)
class EntropyEffects:
    """Effects of the candidates and of control neurons of similar norm."""

    candidates: tuple[EntropyEffect, ...]
    others: tuple[EntropyEffect, ...]
    least: float
    """The total effect that a candidate must exceed."""

    @property
    def confirmed(self) -> list[int]:
        """The candidates that are entropy neurons."""
        return [e.neuron for e in self.candidates if e.size > self.least and e.indirect > _MIN_INDIRECT_SHARE]


_MIN_INDIRECT_SHARE = 0.5
"""Share of the effect that must go through the norm."""
_MIN_ENTROPY_CHANGE = 1e-3
"""Least total effect of an entropy neuron, nats."""


def mean_ablate(
    model: Model,
    texts: Sequence[str],
    *,
    top: float = 0.25,
    count: int = 10,
    each: int = 2,
    tokens: int = 128,
    processing: WeightProcessing = "folded",
    seed: int = 0,
) -> EntropyEffects:
    """Effects of the candidates by both criteria and of their controls.

    A candidate is confirmed if its effect exceeds that of all controls and goes through the norm.
    """
    statistics = neuron_statistics(model, processing=processing)
    by_variance = entropy_neuron_candidates(statistics, by="variance", top=top, count=count)
    by_null = entropy_neuron_candidates(statistics, by="null", top=top, count=count)
    chosen = list(dict.fromkeys([*by_variance, *by_null]))
    controls = norm_matched_neurons(statistics, chosen, each=each, seed=seed)
    effects = entropy_effects(model, texts, [*chosen, *controls], tokens=tokens)
    candidates, others = tuple(effects[: len(chosen)]), tuple(effects[len(chosen) :])
    return EntropyEffects(candidates, others, max([_MIN_ENTROPY_CHANGE, *(effect.size for effect in others)]))
