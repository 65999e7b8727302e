"""Sequence packing: packed texts equal texts alone; unsupported families are detected."""

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ontogeny.activations import sequence_packing as rows
from ontogeny.activations.batching import ActivationRead, Workload
from ontogeny.activations.capture import capture_workload
from ontogeny.activations.sequence_packing import can_pack, offsets, position_ids
from ontogeny.models.model import load_model
from tests.helpers.tiny_models import SHAPES

DRAW = torch.Generator().manual_seed(0)
TEXTS = tuple(tuple(torch.randint(3, 300, (n,), generator=DRAW).tolist()) for n in (1, 2, 5, 5, 5, 9, 13, 13, 21, 40))
NOT_SO = {
    "bert": "sees both sides",
    "bloom": "has no position ids",
    "falcon": "builds masks of its own",
    "gemma2": "caps its attention, which transformers does in a function of its own",
    "gptj": "has no attention that can be exchanged",
    "gemma3_text": "its window is shorter than the texts",
}


def read(model, texts=TEXTS, sites=("resid", "head", "mlp"), **more):
    weights = [[torch.eye(len(t))[-1], torch.linspace(1, 2, len(t)) / len(t)] for t in texts]
    reads = tuple(ActivationRead(i, w) for i, both in enumerate(weights) for w in both)
    return capture_workload(model, Workload(tuple(texts), reads), model.sites(sites), **more)


@pytest.fixture(autouse=True)
def _asked_anew(monkeypatch):
    monkeypatch.setattr(rows, "_KINDS", {})


@pytest.mark.parametrize("family", SHAPES)
def test_packed_texts_equal_texts_alone(tiny, family):
    model = load_model(tiny(family))
    together = read(model)
    for i, text in enumerate(TEXTS):
        alone = read(model, [text])
        for part, values in alone.parts.items():
            assert torch.allclose(
                together.parts[part][:, [2 * i, 2 * i + 1]], values, rtol=1e-4, atol=1e-5 * values.abs().max()
            )
        assert torch.allclose(together.inputs[i], alone.inputs[0], atol=1e-6)
    assert (together.counts.batches == 1) == (family not in NOT_SO), NOT_SO.get(family, "should lie in one row")


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_heads_are_bit_identical_whatever_the_other_texts(tiny, family):
    model = load_model(tiny(family))
    whole = read(model, sites=("head",))
    for chosen in ([9, 0, 4], [3, 6, 7, 8], [2, 3, 4]):
        some = read(model, [TEXTS[i] for i in chosen], sites=("head",))
        places = [2 * i + k for i in chosen for k in (0, 1)]
        assert torch.equal(some.parts["head"], whole.parts["head"][:, places])
        assert torch.equal(some.inputs, whole.inputs[chosen])
    shorter = read(model, sites=("head",), token_budget=30)
    assert shorter.counts.batches > 2
    assert torch.equal(shorter.parts["head"], whole.parts["head"])


def test_rejects_attention_across_texts(tiny, monkeypatch):
    model = load_model(tiny("gpt_neox"))
    assert can_pack(model, 40)
    monkeypatch.setattr(rows, "_KINDS", {})
    monkeypatch.setattr(rows, "_attention", ALL_ATTENTION_FUNCTIONS["sdpa"])
    assert not can_pack(model, 40)
    assert read(model).counts.batches > 1


def test_model_is_restored(tiny):
    model = load_model(tiny("gpt2"))
    before = model.network.config._attn_implementation

    def fail(*_args):
        raise RuntimeError("stop")

    assert can_pack(model, 40)
    handle = model.block(2).register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        read(model)
    handle.remove()
    assert model.network.config._attn_implementation == before == "sdpa"


def test_offsets_and_positions():
    alike = offsets([2, 2, 3])
    assert [(one.start, one.texts, one.length, one.end) for one in alike] == [(0, 2, 2, 4), (4, 1, 3, 7)]
    assert position_ids(alike).tolist() == [[0, 1, 0, 1, 0, 1, 2]]
