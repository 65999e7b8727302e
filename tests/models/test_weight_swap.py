"""Weight swap: a refilled network equals the one that transformers would load, bit for bit."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ontogeny.errors import CheckpointError
from ontogeny.models import weight_swap
from ontogeny.models.loading import ModelOptions
from ontogeny.models.model import load_model
from ontogeny.models.reusable import ReusableModel
from tests.helpers.tiny_models import byte_tokenizer, save_tiny, tiny_model

FAMILIES = ("gpt_neox", "llama", "gpt2")
IDS = torch.tensor([[5, 17, 40, 9, 201, 33]])


def logits(network):
    with torch.inference_mode():
        return network(IDS, use_cache=False).logits


def theirs(folder: Path, dtype=torch.float32):
    return logits(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval())


def sha(folder: Path) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.safetensors"))]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [1000, weight_swap._CHUNK_BYTES])
def test_refilled_network_equals_a_loaded_one(family, dtype, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(weight_swap, "_CHUNK_BYTES", chunk)
    one, two = save_tiny(family, tmp_path / "1", seed=1), save_tiny(family, tmp_path / "2", seed=2)
    before = sha(one)
    model = load_model(one, dtype=dtype)
    known = weight_swap.tensor_map(model.network, one)
    assert known is not None
    assert weight_swap.is_compatible(known, two)
    weight_swap.copy_to_own_memory(model.network)
    assert weight_swap.load_into(model.network, known, two) >= sum(p.numel() for p in model.network.parameters()) * 4
    assert torch.equal(logits(model.network), theirs(two, dtype))
    assert not torch.equal(theirs(one, dtype), theirs(two, dtype))
    assert sha(one) == before  # nothing was written through a mapped file


def test_refills_from_shards(tmp_path):
    one, two = save_tiny("llama", tmp_path / "1", seed=1), tmp_path / "2"
    tiny_model("llama", seed=2).save_pretrained(two, max_shard_size="40KB")
    assert len(list(two.glob("*.safetensors"))) > 1
    model = load_model(one)
    known = weight_swap.tensor_map(model.network, one)
    assert weight_swap.is_compatible(known, two)
    weight_swap.copy_to_own_memory(model.network)
    weight_swap.load_into(model.network, known, two)
    assert torch.equal(logits(model.network), theirs(two))


def test_other_shape_or_config_is_incompatible(tmp_path):
    one, two = save_tiny("gpt_neox", tmp_path / "1"), save_tiny("gpt_neox", tmp_path / "2", context=64)
    known = weight_swap.tensor_map(load_model(one).network, one)
    assert weight_swap.is_compatible(known, one)
    assert not weight_swap.is_compatible(known, two)


def test_no_map_if_tensors_differ(tmp_path):
    folder = save_tiny("gpt2", tmp_path / "1")
    model = load_model(folder)
    with torch.no_grad():
        next(iter(model.network.parameters())).add_(1)  # the network is not what the file says
    assert weight_swap.tensor_map(model.network, folder) is None


def test_one_model_is_reused_for_a_lineage(tmp_path):
    folders = [save_tiny("gpt_neox", tmp_path / str(i), seed=i) for i in range(4)]
    damaged = load_file(folders[2] / "model.safetensors")
    next(iter(damaged.values())).view(-1)[0] = torch.nan
    save_file(damaged, folders[2] / "model.safetensors", metadata={"format": "pt"})
    standing, built = ReusableModel(ModelOptions()), 0
    for i, folder in enumerate(folders):
        if i == 2:
            with pytest.raises(CheckpointError, match="not finite"):
                standing.load(folder)
            continue
        model, more = standing.load(folder)
        built += more
        assert torch.equal(logits(model.network), theirs(folder))
    assert built == 1


def test_unembedding_is_not_read_without_questions(tmp_path):
    one, two = save_tiny("gpt_neox", tmp_path / "1", seed=1), save_tiny("gpt_neox", tmp_path / "2", seed=2)
    standing = ReusableModel(ModelOptions(), scores_vocabulary=False)
    before = standing.load(one)[0].network.get_output_embeddings().weight.clone()
    model, _ = standing.load(two)
    expected = AutoModelForCausalLM.from_pretrained(two).eval()
    with torch.inference_mode():
        assert torch.equal(model.body(IDS).last_hidden_state, expected.base_model(IDS).last_hidden_state)
    assert torch.equal(model.network.get_output_embeddings().weight, before)


def test_other_tokenizer_is_loaded(tmp_path):
    one, two = save_tiny("gpt2", tmp_path / "1", seed=1), save_tiny("gpt2", tmp_path / "2", seed=2)
    byte_tokenizer(bos=True).save_pretrained(two)
    standing = ReusableModel(ModelOptions())
    first = standing.load(one)[0].tokenizer("a").input_ids
    model, built = standing.load(two)
    assert built == 0
    assert model.tokenizer("a").input_ids == [0, *first]


def test_truncated_file_invalidates_the_model(tmp_path):
    one, two, three = (save_tiny("llama", tmp_path / str(i), seed=i) for i in range(3))
    standing = ReusableModel(ModelOptions())
    standing.load(one)
    file = two / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        standing.load(two)
    assert torch.equal(logits(standing.load(three)[0].network), theirs(three))
