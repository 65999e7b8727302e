"""Packed linear layers: same numbers, working hooks, full cleanup."""

import pytest
import torch
from torch import nn

from ontogeny.models import onednn
from ontogeny.models.onednn import packed_linears
from tests.helpers.tiny_models import tiny_model

IDS = torch.tensor([[5, 17, 40, 9, 201, 33], [8, 8, 120, 64, 77, 250]])
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def hidden(network):
    with torch.inference_mode():
        return network.base_model(input_ids=IDS, use_cache=False).last_hidden_state


@needs_onednn
@pytest.mark.parametrize("family", ["gpt_neox", "llama", "gpt2"])
def test_same_numbers_and_full_cleanup(family):
    network = tiny_model(family)
    plain = hidden(network)
    with packed_linears(network.base_model) as count:
        assert count > 0
        again = hidden(network)
    torch.testing.assert_close(again, plain, rtol=0, atol=float(5e-6 * plain.abs().max()))
    assert not any("forward" in vars(m) for m in network.modules())
    assert torch.equal(hidden(network), plain)


@needs_onednn
def test_hooks_work_on_packed_layers():
    network, seen = tiny_model("gpt_neox"), []
    linear = network.get_submodule("gpt_neox.layers.0.mlp.dense_4h_to_h")
    handle = linear.register_forward_pre_hook(lambda _m, args: seen.append(args[0].shape))
    with packed_linears(network.base_model):
        hidden(network)
    handle.remove()
    assert seen == [torch.Size([2, 6, 64])]


@needs_onednn
def test_nested_packing_packs_once():
    network = tiny_model("gpt2")
    with packed_linears(network.base_model) as outside:
        with packed_linears(network.base_model) as inside:
            assert (outside > 0, inside) == (True, 0)
        assert any("forward" in vars(m) for m in network.modules())
    assert not any("forward" in vars(m) for m in network.modules())


@needs_onednn
def test_cleanup_after_an_exception():
    network = tiny_model("llama")
    with pytest.raises(RuntimeError, match="on purpose"), packed_linears(network.base_model):
        raise RuntimeError("on purpose")
    assert not any("forward" in vars(m) for m in network.modules())


@needs_onednn
def test_rejects_a_wrong_product(monkeypatch):
    monkeypatch.setattr(onednn, "_product", lambda x, w, bias, how: torch.zeros(len(x), 8))
    with packed_linears(nn.Sequential(nn.Linear(16, 8))) as count:
        assert count == 0


def test_other_dtypes_and_large_models_are_not_packed(monkeypatch):
    with packed_linears(nn.Sequential(nn.Linear(16, 8)).bfloat16()) as count:
        assert count == 0
    monkeypatch.setattr(onednn, "_MAX_BYTES", 10)
    with packed_linears(nn.Sequential(nn.Linear(16, 8))) as count:
        assert count == 0
