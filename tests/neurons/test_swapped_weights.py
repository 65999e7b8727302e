"""Output weights of another model's neurons: swapped and restored bit for bit, and equal to those computed from a cache."""

import pytest
import torch

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.models.model import load_model
from ontogeny.neurons.entropy_neurons import neuron_output_vectors
from ontogeny.neurons.swapped_weights import cache_stage, swap_neuron_weights
from ontogeny.tasks.confidence import answer_probabilities, next_token_certainty
from tests.neurons.test_entropy_neurons import PLANTED, lively, plant

TEXTS = [f"{who} went to the hill with {n} cats" for who in ("a man", "the king") for n in "123"][:5]
ANSWERS = [Answer(f"what is {n} ?", f" it is {n}", f" it is {n + 1}", f"pair {n // 2}") for n in range(12)]


def test_swap_restores_weights_even_after_an_exception(tiny):
    model, other = (plant(lively(tiny("gpt_neox")), length=of) for of in (0.3, 40.0))
    other = neuron_output_vectors(other)
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    with swap_neuron_weights(model, other, [PLANTED, 3]):
        inside = neuron_output_vectors(model)
        assert torch.equal(inside[[PLANTED, 3]], other[[PLANTED, 3]])
        assert torch.equal(inside[4:7], neuron_output_vectors(model)[4:7])
    with pytest.raises(RuntimeError, match="on purpose"), swap_neuron_weights(model, other, [PLANTED]):
        raise RuntimeError("on purpose")
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())
    with pytest.raises(BadInput, match="one architecture"), swap_neuron_weights(model, other[:5], [0]):
        pass


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "olmo2", "gemma2"])
def test_stage_cache_equals_swapped_weights(tiny, family):
    model, other = lively(tiny(family)), neuron_output_vectors(lively(tiny(family, seed=1)))
    chosen = [3, 9, 20]
    end = cache_stage(model, TEXTS, ANSWERS, [*chosen, 30], tokens=32)
    plain, said = end.under(neuron_output_vectors(model), chosen)
    assert torch.allclose(plain, next_token_certainty(model, TEXTS, tokens=32)[0], atol=1e-4)
    assert torch.allclose(said.shares, answer_probabilities(model, ANSWERS).shares, atol=1e-4)
    sure, believed = end.under(other, chosen)
    with swap_neuron_weights(model, other, chosen):
        assert torch.allclose(sure, next_token_certainty(model, TEXTS, tokens=32)[0], atol=1e-4)
        assert torch.allclose(believed.shares, answer_probabilities(model, ANSWERS).shares, atol=1e-4)
    assert not torch.allclose(said.shares, believed.shares, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "olmo2", "opt", "falcon"])
def test_swap_of_all_rows_copies_the_weight_in_every_layout(tiny, family):
    """Swapping all rows copies the whole weight, whether or not it is stored transposed."""
    model, other = load_model(tiny(family)), load_model(tiny(family, seed=1))
    linear, theirs = (m.part(m.layers, m.architecture.neurons) for m in (model, other))
    with swap_neuron_weights(model, neuron_output_vectors(other), range(len(neuron_output_vectors(other)))):
        assert torch.equal(linear.weight, theirs.weight)
    assert not torch.equal(linear.weight, theirs.weight)
