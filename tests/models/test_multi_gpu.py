"""A network with blocks on two devices (fake tensors): all reads are moved to the first device."""

import contextlib
import sys

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ontogeny.activations import batching
from ontogeny.activations.capture import capture_workload
from ontogeny.activations.workload import build_workload
from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.models import multi_gpu
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import Model, load_model, model_from_network
from ontogeny.models.validation import validate_model
from tests.helpers.planted_lineages import rows, write
from tests.helpers.tiny_models import byte_tokenizer, tiny_model

HERE, THERE = torch.device("cpu"), torch.device("cpu:1")


def move(module: nn.Module) -> None:
    """As accelerate does it: the parameters there, and what comes in is sent after them."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(parameter.detach().to(THERE)))
    forward = module.forward

    def aligned(*args: object, **named: object) -> object:
        return forward(*_sent(args), **{name: _sent(value) for name, value in named.items()})

    module.forward = aligned


def _sent(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(_sent(inner) for inner in value)
    return value.to(THERE) if isinstance(value, Tensor) else value


def spread(family: str) -> Model:
    """To be called among fake tensors."""
    network = tiny_model(family).eval()
    model = model_from_network(network, byte_tokenizer())
    unembedding = network.get_output_embeddings()
    unembedding.weight = nn.Parameter(unembedding.weight.detach().clone())  # a tied one would take the embedding along
    for module in (model.block(2), network.get_submodule(model.architecture.final_norm), unembedding):
        move(module)
    return model


@pytest.mark.parametrize("answers", [False, True])
@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_reads_are_moved_to_the_first_device(family, answers, tmp_path, monkeypatch):
    concept = Concept.from_file(write(tmp_path / "some.csv", rows(characters=20, answers=answers)))
    work, _ = build_workload([concept], byte_tokenizer(), 128)
    cut = list(batching.make_batches(work, 1024, HERE))  # looks at numbers, which fake tensors have none of
    monkeypatch.setattr("ontogeny.activations.capture.make_batches", lambda *_, **__: cut)
    monkeypatch.setattr(
        "ontogeny.activations.capture.packed_linears", lambda _: contextlib.nullcontext(0)
    )  # of CPUs alone
    monkeypatch.setattr("ontogeny.activations.capture.can_pack", lambda *_: False)  # likewise
    monkeypatch.setattr("ontogeny.activations.capture.memoise_first_block", lambda *_, **__: None)  # likewise
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = spread(family)
        outside = model.block(2)(torch.zeros(1, 3, 32), **_positions(model))
        assert (outside[0] if isinstance(outside, tuple) else outside).device == THERE
        found = capture_workload(model, work, model.sites("resid,head,mlp,neuron,attn_resid"))
        assert {part.device for part in (*found.parts.values(), found.inputs, found.answers)} == {HERE}
        assert found.parts["resid"].shape == (3, len(work.reads), 32)
        assert found.counts.answer_rows > 0 or not answers


def _positions(model: Model) -> dict[str, tuple[Tensor, Tensor]]:
    size = model.d_head // (4 if model.network.config.model_type == "gpt_neox" else 1)
    return {"position_embeddings": (torch.ones(1, 3, size), torch.ones(1, 3, size))}


def test_missing_accelerate_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(BadInput, match="needs accelerate"):
        multi_gpu.place_network(tiny_model("llama"), "all")


def test_spread_network_reads_the_same(tiny, tmp_path):
    pytest.importorskip("accelerate", reason="accelerate is an extra: pip install 'ontogeny[ray]'")
    concept = Concept.from_file(write(tmp_path / "some.csv", rows(characters=20)))
    whole, apart = (load_model(tiny("llama"), device=device) for device in ("cpu", "all"))
    assert apart.network.hf_device_map
    validate_model(apart)
    work, _ = build_workload([concept], whole.tokenizer, whole.context)
    plain, hooked = (capture_workload(model, work, model.sites("resid,head")) for model in (whole, apart))
    for part in plain.parts:
        assert torch.equal(plain.parts[part], hooked.parts[part])


@pytest.mark.parametrize("device", ["cpu", "all"])
def test_input_device(device):
    assert multi_gpu.input_device(device) == ("cuda" if device == "all" and torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(("cuda", "mps", "fastest"), [(1, 1, "cuda"), (1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")])
def test_auto_is_the_fastest_device(monkeypatch, cuda, mps, fastest):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    assert ModelOptions("auto").device == multi_gpu.input_device("auto") == fastest
    assert ModelOptions("cuda:1").device == multi_gpu.input_device("cuda:1") == "cuda:1"
    assert ModelOptions().device == "cpu"
