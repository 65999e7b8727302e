"""Queries and keys: their softmax is the attention that the model itself returns, for every family and with grouped keys."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ontogeny.activations.attention_vectors import attention_vectors
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from tests.helpers.tiny_models import GROUPED, SHAPES, outspoken

OTHER_WAYS = ("bloom", "falcon", "gptj")
FAMILIES = sorted(set(SHAPES) - set(OTHER_WAYS))
IDS = torch.tensor([5, 41, 7, 41, 99, 12, 3, 250, 41, 8, 60, 61])


def own_attention(model: Model) -> torch.Tensor:
    """Attention as the model returns it, from another pass in transformers' own way."""
    model.network.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model.body(input_ids=IDS[None], output_attentions=True).attentions
    return torch.stack(patterns)[:, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_softmax_of_query_and_key_is_the_attention_of_the_model(family: str, tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny(family))
    found = attention_vectors(model, IDS)
    logits = found.queries @ found.keys.transpose(2, 3) / math.sqrt(found.queries.shape[-1])
    cap = getattr(model.network.config, "attn_logit_softcapping", None)
    logits = cap * torch.tanh(logits / cap) if cap else logits
    expected = own_attention(model)
    logits = logits.masked_fill(
        expected == 0, -math.inf
    )  # what a token does not see: later ones, or those beyond its window
    torch.testing.assert_close(logits.softmax(-1), expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.patterns, expected, atol=1e-4, rtol=1e-3)
    uniform = (expected > 0) / (expected > 0).sum(-1, keepdim=True)
    assert (expected - uniform).abs().max() > 0.02, "attention that is uniform would hide a wrong query"


def test_heads_of_a_group_share_their_keys(tiny: Callable[..., Path]) -> None:
    keys = attention_vectors(outspoken(tiny("llama")), IDS).keys
    assert GROUPED["num_key_value_heads"] == 2
    assert torch.equal(keys[:, 0], keys[:, 1])
    assert not torch.equal(keys[:, 1], keys[:, 2])


def test_the_model_is_left_as_it_was(tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny("gpt_neox"))
    before = model.network.config._attn_implementation
    with torch.no_grad():
        logits = model.network(input_ids=IDS[None]).logits
        attention_vectors(model, IDS)
        assert torch.equal(model.network(input_ids=IDS[None]).logits, logits)
    assert model.network.config._attn_implementation == before


@pytest.mark.parametrize("family", OTHER_WAYS)
def test_a_family_with_another_attention_is_refused(family: str, tiny: Callable[..., Path]) -> None:
    with pytest.raises(BadInput, match="cannot be reached"):
        attention_vectors(outspoken(tiny(family)), IDS)
