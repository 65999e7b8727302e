"""Queries and keys: their softmax is the attention that the model itself returns, for every family and with grouped keys."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ontogeny.activations.attention_vectors import AttentionVectors, attention_vectors
from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.errors import BadInput
from ontogeny.models.attention_patterns import AttentionCall, pattern_hooks
from ontogeny.models.hooks import read_hooks, write_hooks
from ontogeny.models.model import Model, site_width
from ontogeny.sites import Site, expand_sites
from tests.helpers import tiny_models
from tests.helpers.tiny_models import GROUPED, PLAIN, SHAPES, outspoken

FAMILIES = sorted(SHAPES)
VARIANTS = {
    "six heads with ALiBi": ("bloom", dict(hidden_size=36, n_layer=2, n_head=6)),
    "ALiBi": ("falcon", PLAIN | dict(alibi=True)),
    "ALiBi and a key for each head": ("falcon", PLAIN | dict(alibi=True, multi_query=False)),
    "keys of groups": ("falcon", PLAIN | dict(new_decoder_architecture=True, num_kv_heads=2)),
    "all of a head rotated": ("gptj", dict(n_embd=32, n_layer=2, n_head=4, rotary_dim=8)),
}
"""Models of families with an attention of their own, other than those of the shapes."""
IDS = torch.tensor([5, 41, 7, 41, 99, 12, 3, 250, 41, 8, 60, 61])


def own_attention(model: Model) -> torch.Tensor:
    """Attention as the model returns it, from another pass in transformers' own way."""
    model.network.set_attn_implementation("eager")
    model.body.config._attn_implementation = (
        "eager"  # the method leaves Falcon as it is, which then attends to later tokens
    )
    with torch.no_grad():
        patterns = model.body(input_ids=IDS[None], output_attentions=True).attentions
    return torch.stack(patterns)[:, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_softmax_of_query_and_key_is_the_attention_of_the_model(family: str, tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny(family))
    assert model.architecture.own_attention is not None or family not in ("bloom", "falcon", "gptj")
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
    assert {site_width(model, Site(part, 1, 0)) for part in ("query", "key")} == {found.queries.shape[-1]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_of_a_family_s_own_is_that_of_the_model(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a padded batch, with a KV cache, and with another pattern; ALiBi is one more coordinate, the position in the keys."""
    family, shape = VARIANTS[variant]
    monkeypatch.setitem(tiny_models.SHAPES, family, shape)
    model = outspoken(tiny_models.save_tiny(family, tmp_path))
    ids = torch.stack([IDS, IDS.flip(0)])
    seen = torch.ones_like(ids)
    seen[1, :4] = 0
    calls: list[AttentionCall] = []
    with torch.no_grad():
        plain = model.body(input_ids=ids, attention_mask=seen, use_cache=False)[0]
        with pattern_hooks(model, calls.append):
            hooked = model.body(input_ids=ids, attention_mask=seen, use_cache=False)[0]
            whole, first, rest = calls[:], *cached_passes(model, calls, ids, seen)
        again = model.body(input_ids=ids, attention_mask=seen, use_cache=False)[0]
    torch.testing.assert_close(hooked[seen > 0], plain[seen > 0], atol=1e-4, rtol=1e-3)
    assert torch.equal(again, plain), "no method stays exchanged"
    visible = torch.ones(len(IDS), len(IDS), dtype=torch.bool).tril() & (seen[:, None, None] > 0)
    for one, early, late in zip(whole, first, rest, strict=True):
        scores = one.queries @ one.keys.transpose(2, 3) / math.sqrt(one.queries.shape[-1])
        expected = scores.masked_fill(~visible, -math.inf).softmax(-1)
        own = (seen > 0)[:, None, :, None].expand_as(expected)
        torch.testing.assert_close(one.pattern[own], expected[own], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(late.pattern, one.pattern[:, :, 8:], atol=1e-4, rtol=1e-3)
        for vectors, expected in ((late.keys, one.keys), (early.queries, one.queries[:, :, :8])):
            of_text = (seen[:, None, : vectors.shape[2], None] > 0).expand_as(vectors)
            torch.testing.assert_close(vectors[of_text], expected[of_text], atol=1e-4, rtol=1e-3)
        if "ALiBi" in variant:
            root, places = one.queries[0, :, 0, -1], one.keys[:, :, :, -1]
            positions = ((seen.cumsum(1) - 1) * seen)[:, None].expand_as(places)
            torch.testing.assert_close(places, root[:, None] * positions, atol=1e-4, rtol=1e-2)
    first_token = torch.zeros_like(whole[0].pattern)
    first_token[..., 0] = 1.0
    with torch.no_grad(), pattern_hooks(model, lambda call: first_token):
        changed = model.body(input_ids=ids, use_cache=False)[0]
    assert (changed - again).abs().max() > 0.01


def cached_passes(model: Model, calls: list[AttentionCall], ids: torch.Tensor, seen: torch.Tensor) -> Any:
    """The calls of a pass over eight tokens, and of one over the rest with its KV cache."""
    parts, cache = [], None
    for start, end in ((0, 8), (8, ids.shape[1])):
        calls.clear()
        output = model.body(
            input_ids=ids[:, start:end], attention_mask=seen[:, :end], past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        parts.append(calls[:])
    return parts


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


def test_a_family_with_another_attention_and_without_a_table_is_refused(tiny: Callable[..., Path]) -> None:
    model = outspoken(tiny("gptj"))
    unknown = replace(model, architecture=replace(model.architecture, own_attention=None))
    with pytest.raises(BadInput, match="of gptj cannot be reached"):
        attention_vectors(unknown, IDS)
