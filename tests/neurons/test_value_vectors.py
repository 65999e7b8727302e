"""Value vectors near a direction: a planted one comes first and its antipode last, for gated and plain MLPs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.lenses import read_in_tokens
from ontogeny.models.model import load_model, output_weight
from ontogeny.neurons.value_vectors import nearest_value_vectors
from ontogeny.sites import Site


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2"])
def test_planted_value_vector_and_its_antipode(family: str, tiny: Callable[..., Path]) -> None:
    model = load_model(tiny(family))
    direction = model.network.get_output_embeddings().weight[7].detach().clone()
    with torch.no_grad():
        output_weight(model, Site("mlp", 2))[5] = 3 * direction
        output_weight(model, Site("mlp", 1))[4] = -2 * direction
    first, *others = nearest_value_vectors(model, direction, top=4)
    assert (first.layer, first.unit, str(first.site)) == (2, 5, "neuron.2")
    assert first.cosine == pytest.approx(1, abs=1e-5)
    assert [one.cosine for one in others] == sorted((one.cosine for one in others), reverse=True)
    (last,) = nearest_value_vectors(model, direction, top=1, antipodes=True)
    assert (last.layer, last.unit, last.cosine) == (1, 4, pytest.approx(-1, abs=1e-5))
    assert others[0].cosine < 0.9
    assert 0.2 < first.chance < 0.9
    name = model.tokenizer.convert_ids_to_tokens(7)
    assert name in [token for token, _ in read_in_tokens(model, first.vector, top=3).promoted]
    assert name in [token for token, _ in read_in_tokens(model, last.vector, top=3).suppressed]


def test_wrong_directions_and_layers_are_refused(tiny: Callable[..., Path]) -> None:
    model = load_model(tiny("llama"))
    good = torch.ones(model.d)
    for direction, options, words in (
        (torch.ones(3), {}, "must be 32 finite numbers"),
        (torch.zeros(model.d), {}, "not all 0"),
        (good, {"layers": [0]}, "must lie between 1 and 2"),
        (good, {"layers": []}, "must lie between 1 and 2"),
        (good, {"top": 0}, "`top` be at least 1"),
    ):
        with pytest.raises(BadInput, match=words):
            nearest_value_vectors(model, direction, **options)
    with pytest.raises(BadInput, match="mixture of experts"):
        nearest_value_vectors(load_model(tiny("olmoe")), good)
