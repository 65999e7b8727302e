"""First-block memo: each token id is computed once, numbers are bit-identical, and context-dependent projections run fully."""

import pytest
import torch

from ontogeny.activations import first_block_memo
from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.models.hooks import write_hooks
from ontogeny.models.model import load_model
from ontogeny.models.validation import validate_model
from ontogeny.sites import Site
from tests.helpers.tiny_models import save_tiny

DRAW = torch.Generator().manual_seed(0)
TEXTS = tuple(tuple(torch.randint(3, 40, (n,), generator=DRAW).tolist()) for n in (1, 2, 5, 5, 9, 13, 21, 40, 40))
SITES = ("resid", "head", "mlp", "attn")
SEEN = {
    "gpt_neox": {"mlp", "attention.query_key_value"},
    "llama": {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
    "bloom": {"self_attention.query_key_value"},
    "phi": {"mlp", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
    "gpt2": set(),
    "opt": set(),
    "bert": set(),
}
"""Projections that depend on the token only: none with added positions, the MLP in parallel blocks."""


def read(model, texts=TEXTS, sites=SITES, **more):
    reads = tuple(ActivationRead(i, torch.eye(len(t))[-1]) for i, t in enumerate(texts))
    return capture_workload(model, Workload(tuple(texts), reads), model.sites(sites), **more)


def plainly(model, monkeypatch, **more):
    """The same without what is tested here."""
    with monkeypatch.context() as patch:
        patch.setattr(first_block_memo, "MIN_REPEATED_SHARE", 2)
        return read(model, **more)


def rows_of(module):
    """How many rows a module's own forward is asked for, call by call."""
    asked, own = [], module.forward

    def forward(x):
        asked.append(x.flatten(0, -2).shape[0])
        return own(x)

    module.forward = forward
    return asked


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch):
    monkeypatch.setattr(first_block_memo, "_KINDS", {})


@pytest.mark.parametrize("family", SEEN)
def test_finds_projections_that_depend_on_the_token_only(tiny, family):
    assert set(first_block_memo._paths(load_model(tiny(family)))) == SEEN[family]


@pytest.mark.parametrize("budget", [1024, 25])
@pytest.mark.parametrize("family", SEEN)
def test_numbers_are_bit_identical(tiny, monkeypatch, family, budget):
    model = load_model(tiny(family))
    for sites in (SITES, ("resid", "neuron"), ("resid.1",), ("resid.2", "resid.0")):
        found = read(model, sites=sites, token_budget=budget)
        wanted = plainly(model, monkeypatch, sites=sites, token_budget=budget)
        assert all(torch.equal(found.parts[part], wanted.parts[part]) for part in wanted.parts)
        assert torch.equal(found.inputs, wanted.inputs)
    assert "forward" not in vars(model.part(1, model.architecture.mlp))


def test_repeated_token_is_computed_once(tiny):
    model = load_model(tiny("gpt_neox"))
    read(model)  # what is asked of a family once is asked now
    asked = rows_of(model.part(1, "mlp"))
    later = rows_of(model.part(2, "attention.query_key_value"))
    read(model, token_budget=30)
    tokens, words = sum(map(len, TEXTS)), len({word for text in TEXTS for word in text})
    assert words < 0.65 * tokens
    assert len(later) > 3
    assert sum(later) == tokens
    # One row alone is computed twice, lest its last digits differ.
    assert words <= sum(asked) <= words + sum(n == 2 for n in asked)


def test_other_weights_are_computed_again(tiny, monkeypatch, tmp_path):
    one, other = load_model(tiny("gpt_neox")), load_model(save_tiny("gpt_neox", tmp_path, seed=5))
    first = read(one)
    one.network.load_state_dict(other.network.state_dict())
    assert torch.equal(read(one).parts["resid"], plainly(other, monkeypatch).parts["resid"])
    assert not torch.equal(first.parts["resid"], read(one).parts["resid"])


def test_memo_is_off_if_the_stream_is_edited(tiny, monkeypatch):
    model = load_model(tiny("gpt_neox"))

    def last_token(h):
        h = h.clone()
        h[:, -1] += 3
        return h

    with write_hooks(model, Site("resid", 0), last_token):
        found, wanted = read(model), plainly(model, monkeypatch)
    assert torch.equal(found.parts["resid"], wanted.parts["resid"])
    assert not torch.equal(found.parts["resid"], read(model).parts["resid"])


def test_hooks_left_by_transformers_do_not_disable_the_memo(tiny):
    """Each job checks its first model against the library's own hidden states, which hooks every block for good."""
    model = load_model(tiny("gpt_neox"))
    validate_model(model)
    assert model.block(1)._forward_hooks
    assert first_block_memo.memoise_first_block(model, TEXTS, inside_mlp=False) is not None


def test_memo_is_off_with_few_repeats(tiny):
    model = load_model(tiny("gpt_neox"))
    assert first_block_memo.memoise_first_block(model, [(1, 2, 3, 4), (5, 6, 7, 1)], inside_mlp=False) is None
    assert first_block_memo.memoise_first_block(model, [(1, 2, 2, 1), (1, 2)], inside_mlp=False) is not None


def test_small_memo_keeps_the_most_frequent_tokens(tiny, monkeypatch):
    model = load_model(tiny("gpt_neox"))
    monkeypatch.setattr(first_block_memo, "MAX_MEMO_BYTES", 4 * (32 + 96) * 3)
    kept = first_block_memo.memoise_first_block(model, TEXTS, inside_mlp=False)
    assert kept is not None
    assert int((kept.slot_of_token >= 0).sum()) == 3
    assert torch.equal(read(model).parts["resid"], plainly(model, monkeypatch).parts["resid"])
