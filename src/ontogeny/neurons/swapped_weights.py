"""Output weights of neurons of the last MLP, taken from another model of the same architecture: swapped in place, or from a cache."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.models.model import Model, output_weight
from ontogeny.neurons.last_layer_cache import (
    LastLayerCache,
    apply_final_norm,
    cache_last_layer,
    next_token_entropies,
    target_log_likelihoods,
)
from ontogeny.neurons.mean_ablation import first_tokens
from ontogeny.sites import Site
from ontogeny.steering.log_likelihood import tokenize_answers
from ontogeny.tasks.confidence import AnswerProbabilities, answer_pairs


@contextlib.contextmanager
@torch.no_grad()
def swap_neuron_weights(model: Model, rows: Float[Tensor, "neuron d"], chosen: Sequence[int]) -> Iterator[None]:
    """While open, the chosen neurons of the last MLP write the given rows; then their own weights are restored bit for bit.

    Raises:
        BadInput: rows of another layer's shape, or a neuron that does not exist.
    """
    weight = output_weight(model, Site("mlp", model.layers))
    if rows.shape != weight.shape or any(not 0 <= n < len(weight) for n in chosen):
        raise BadInput(
            f"`rows` must have the shape {tuple(weight.shape)} of the last MLP and hold all chosen neurons, got {tuple(rows.shape)}: "
            "swap between stages of one architecture."
        )
    at = list(chosen)
    before = weight[at].clone()
    try:
        weight[at] = rows[at].to(weight)
        yield
    finally:
        weight[at] = before


@dataclass(frozen=True, eq=False)
class StageCache:
    """Last-layer cache of one stage on texts and answers, for some of its neurons."""

    model: Model
    texts: LastLayerCache
    answers: LastLayerCache
    targets: Int[Tensor, " token"]
    """The token after each cached token of an answer."""

    @torch.no_grad()
    def under(
        self, rows: Float[Tensor, "neuron d"], chosen: Sequence[int]
    ) -> tuple[Float[Tensor, " text"], AnswerProbabilities]:
        """Mean entropy of each text and answer probabilities, as `swap_neuron_weights` would give them."""
        own = output_weight(self.model, Site("mlp", self.model.layers))
        change = rows[list(chosen)].to(own) - own[list(chosen)]
        texts, answers = (apply_final_norm(self.model, of, of.of(chosen) @ change) for of in (self.texts, self.answers))
        likelihoods = self.answers.sum(target_log_likelihoods(self.model, answers, self.targets))
        entropies = self.texts.mean(next_token_entropies(self.model, texts))
        return entropies, AnswerProbabilities(likelihoods.view(-1, 2).softmax(1))


def cache_stage(
    model: Model, texts: Sequence[str], questions: Sequence[Answer], chosen: Sequence[int], *, tokens: int
) -> StageCache:
    """Run texts and answers once and cache the activations of the chosen neurons."""
    neurons = sorted(set(chosen))
    answers = tokenize_answers(model, answer_pairs(questions))
    # The last token of an answer predicts nothing that is scored.
    ids, starts = [a.ids[:-1] for a in answers], [a.prompt - 1 for a in answers]
    return StageCache(
        model,
        cache_last_layer(model, first_tokens(model, texts, tokens), neurons),
        cache_last_layer(model, ids, neurons, starts=starts),
        torch.cat([a.ids[a.prompt :] for a in answers]),
    )
