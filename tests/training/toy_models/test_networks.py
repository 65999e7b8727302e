"""Toy networks: patched heads, parts of the matrix encoder, and the shapes of a toy model."""

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.training.toy_models.in_world import ToyModelSize, build_network
from ontogeny.training.toy_models.matrix_encoder import MATRIX_PARTS, MatrixEncoder, matrix_part


@pytest.fixture
def encoder() -> MatrixEncoder:
    torch.manual_seed(0)
    return MatrixEncoder(9, 4, 16, 2, 0.5).eval()


IDS = torch.tensor([[1, 2, 0, 4], [5, 6, 7, 0]])
OTHER = torch.tensor([[3, 0, 8, 8], [2, 2, 1, 1]])


def test_heads_patched_from_the_same_input_change_nothing(encoder: MatrixEncoder) -> None:
    plain = encoder(IDS)
    for layer in (1, 2):
        assert torch.equal(encoder.patched(IDS, IDS, layer), plain)
        assert not torch.allclose(encoder.patched(IDS, OTHER, layer), plain, atol=1e-3)
    assert torch.equal(encoder(IDS), plain)  # no hook is left behind


def test_states_and_attention_are_those_of_the_forward_pass(encoder: MatrixEncoder) -> None:
    states, attention = encoder.hidden_states(IDS), encoder.mean_attention(IDS)
    assert torch.allclose(encoder.read_out(states[-1])[..., 0], encoder(IDS), atol=1e-6)
    assert attention.shape == (2, 1, 4, 4)
    assert torch.allclose(attention.sum(-1), torch.ones(2, 1, 4), atol=1e-5)


def test_every_parameter_of_a_block_belongs_to_a_part(encoder: MatrixEncoder) -> None:
    parts = {name: matrix_part(name) for name, _ in encoder.named_parameters()}
    assert set(parts.values()) == {*MATRIX_PARTS, None}
    assert all(part in ("attention", "MLP") for name, part in parts.items() if ".layer." in name)
    outside = [name for name, part in parts.items() if part is None]
    assert all("LayerNorm" in name or "token_type" in name or "read_out" in name for name in outside)


@pytest.mark.parametrize("family", ["gpt_neox", "llama", "gpt2"])
def test_shapes_of_a_toy_model_have_its_size(family: str) -> None:
    config = build_network(ToyModelSize({}, layers=3, heads=4, width=48), 100, 36, family)
    assert config.model_type == family
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (48, 3, 4)
    assert config.max_position_embeddings == 36
    assert config.initializer_range == 0.06


def test_rejects_an_unknown_shape() -> None:
    with pytest.raises(BadInput, match="family"):
        build_network(ToyModelSize({}), 100, 36, "mamba")
