"""Queries and keys: their softmax is the attention that the model itself returns, for every family and with grouped keys."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ontogeny.activations.attention_vectors import AttentionVectors, attention_vectors
from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.errors import BadInput
from ontogeny.models.hooks import read_hooks, write_hooks
from ontogeny.models.model import Model
from ontogeny.sites import Site, expand_sites
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
    assert_sites_are(found, model)
    uniform = (expected > 0) / (expected > 0).sum(-1, keepdim=True)
    assert (expected - uniform).abs().max() > 0.02, "attention that is uniform would hide a wrong query"


def assert_sites_are(vectors: AttentionVectors, model: Model) -> None:
    """The sites `query.l.h` and `key.l.h` hold the same vectors."""
    seen: dict[tuple[str, int], torch.Tensor] = {}
    wanted = [(part, layer) for part in ("query", "key") for layer in range(1, model.layers + 1)]
    with torch.no_grad(), read_hooks(model, wanted, lambda part, layer, value: seen.update({(part, layer): value[0]})):
        model.body(input_ids=IDS[None])
    for (part, layer), value in seen.items():
        expected = (vectors.queries if part == "query" else vectors.keys)[layer - 1]
        torch.testing.assert_close(
            value.unflatten(-1, (model.heads, -1)).transpose(0, 1), expected, atol=1e-4, rtol=1e-3
        )
    assert len(seen) == len(wanted)


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_queries_and_keys_are_captured_beside_other_sites(family: str, tiny: Callable[..., Path]) -> None:
    """Of texts of several lengths, with and without shared prefixes, whatever else is read."""
    model, texts = outspoken(tiny(family)), ["we have seen it", "we have said", "we have seen"]
    sites = model.sites("query.2,key.1.3,head.1.0,resid.2")
    sequences = tuple(tuple(model.tokenizer(text).input_ids) for text in texts)
    reads = tuple(ActivationRead(i, torch.eye(len(ids))[-1]) for i, ids in enumerate(sequences))
    plain, shared = (
        capture_workload(model, Workload(sequences, reads), sites, share_prefixes=s) for s in (False, True)
    )
    for number, ids in enumerate(sequences):
        vectors = attention_vectors(model, torch.tensor(ids))
        for result in (plain, shared):
            torch.testing.assert_close(
                result.parts["query"][:, number], vectors.queries[1, :, -1], atol=1e-4, rtol=1e-3
            )
            torch.testing.assert_close(result.parts["key"][0, number], vectors.keys[0, 3, -1], atol=1e-4, rtol=1e-3)
    alone = capture_workload(model, Workload(sequences, reads), model.sites("head.1.0,resid.2"))
    for part in ("head", "resid"):
        torch.testing.assert_close(plain.parts[part], alone.parts[part], atol=1e-4, rtol=1e-3)


def test_the_grammar_of_queries_and_keys(tiny: Callable[..., Path]) -> None:
    assert str(Site.parse("query.3.5")) == "query.3.5"
    assert [str(site) for site in expand_sites("key.2.*,query.1.0", layers=2, heads=2)] == [
        "query.1.0",
        "key.2.0",
        "key.2.1",
    ]
    for wrong in ("query.3", "key.0.1", "query.1.2.3"):
        with pytest.raises(BadInput, match=r"not a site|does not exist"):
            Site.parse(wrong)
    model = outspoken(tiny("gpt_neox"))
    with (
        pytest.raises(BadInput, match="read and not changed"),
        write_hooks(model, Site.parse("key.1.0"), torch.zeros_like),
    ):
        pass


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
