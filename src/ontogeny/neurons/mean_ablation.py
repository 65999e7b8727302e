"""Does a neuron set how sure a model is? Its mean for its value, the final norm recomputed or frozen (arXiv:2406.16254).

Recomputed, the entropy of the next token changes by the total effect; with the scale of the final norm held, by what the neuron writes into
the logits themselves. An entropy neuron has a large total effect, most of which goes through the norm.
"""

from collections.abc import Iterator, Sequence
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
    """Change of the next token's entropy when one neuron has its mean everywhere, in nats, mean over the tokens of each text."""

    neuron: int
    total: Float[Tensor, " text"]
    """Of the absolute change, the final norm recomputed."""
    frozen: Float[Tensor, " text"]
    """Of the absolute change, the final norm's scale held."""
    signed: Float[Tensor, " text"]
    """Of the change itself, recomputed: below 0 where the neuron makes the model less sure."""

    @property
    def size(self) -> float:
        return float(self.total.mean())

    @property
    def indirect(self) -> float:
        """Share of the effect that goes through the norm; NaN where there is none."""
        return float(1 - self.frozen.mean() / self.total.mean()) if self.size > 0 else float("nan")


@torch.no_grad()
def entropy_effects(
    model: Model, texts: Sequence[str], chosen: Sequence[int], *, tokens: int = 128
) -> list[EntropyEffect]:
    """The effect of each chosen neuron of the last MLP on the texts, of which the first `tokens` count."""
    of = cache_last_layer(model, first_tokens(model, texts, tokens), chosen)
    plain = next_token_entropies(model, of.normed)
    norm = final_norm(model)
    straight = norm.straight(of.stream)
    # The norm's scale of each token, told by what it puts out.
    scale = ((of.normed.double() - norm.bias) * straight).sum(-1) / straight.square().sum(-1)
    rows = output_weight(model, Site("mlp", model.layers))
    found = []
    for neuron in chosen:
        said = of.of([neuron])
        shift = (said.mean() - said) * rows[neuron]
        held = of.normed + (scale[:, None] * norm.straight(stream_change(model, of, shift))).to(of.normed)
        total, frozen = (next_token_entropies(model, x) - plain for x in (apply_final_norm(model, of, shift), held))
        means = (of.mean(change) for change in (total.abs(), frozen.abs(), total))
        found.append(EntropyEffect(neuron, *means))
    return found


def first_tokens(model: Model, texts: Sequence[str], tokens: int) -> list[Int[Tensor, " token"]]:
    """The first tokens of each text.

    Raises:
        BadInput: no text, or an empty one.
    """
    if not texts:
        raise BadInput("entropy needs texts, and none was given. Give some neutral ones.")
    made = [e.ids[: min(tokens, model.context)] for e in encode_texts(model.tokenizer, texts, [None] * len(texts))]
    if empty := [text for text, ids in zip(texts, made, strict=True) if not len(ids)]:
        raise BadInput(f"a text has no tokens: {empty[0]!r}. Give it a word.")
    return made


@dataclass(frozen=True, eq=False)
class EntropyEffects:
    """Candidates and as many neurons of the same norm, each with its effect."""

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
"""In nats: no neuron with less of an effect is one, however little its neighbours have."""


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
    """The candidates of both criteria, and whether they set the entropy: more than others of their norm, and through the norm."""
    found = neuron_statistics(model, processing=processing)
    chosen = list(
        dict.fromkeys(
            n for by in ("variance", "null") for n in entropy_neuron_candidates(found, by=by, top=top, count=count)
        )
    )
    others = norm_matched_neurons(found, chosen, each=each, seed=seed)
    effects = entropy_effects(model, texts, [*chosen, *others], tokens=tokens)
    beside = effects[len(chosen) :]
    return EntropyEffects(tuple(effects[: len(chosen)]), tuple(beside), max([_MIN_ENTROPY_CHANGE, *_sizes(beside)]))


def _sizes(effects: Sequence[EntropyEffect]) -> Iterator[float]:
    return (effect.size for effect in effects)
