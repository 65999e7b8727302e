"""Shards of torch.distributed.checkpoint: read in one process they are the weights that were saved, whatever else lies beside them."""

import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex
from torch.distributed.checkpoint.planner import WriteItem, WriteItemType

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.lineage import Checkpoint, Lineage, weight_bytes, weight_fingerprint
from ontogeny.models.loading import load_network
from ontogeny.models.model import load_model
from tests.helpers.tiny_models import save_tiny

IDS = torch.tensor([[5, 17, 40, 9]])
Tensors = dict[str, torch.Tensor]
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")


class InHalves(dcp.DefaultSavePlanner):
    """Saves each matrix as two chunks of rows, as two ranks of FSDP do."""

    def create_local_plan(self) -> Any:
        plan = super().create_local_plan()
        self.plan = replace(plan, items=[half for item in plan.items for half in _halves(item)])
        return self.plan

    def resolve_data(self, item: WriteItem) -> Any:
        value = super().resolve_data(replace(item, index=MetadataIndex(item.index.fqn)))
        chunk = item.tensor_data.chunk if item.tensor_data else None
        return value if chunk is None or not value.ndim else value.narrow(0, chunk.offsets[0], chunk.sizes[0]).clone()


def _halves(item: WriteItem) -> list[WriteItem]:
    data = item.tensor_data
    if data is None or not data.size or data.size[0] < 2:
        return [item]
    rows, rest = data.size[0], data.size[1:]
    parts = ((0, rows // 2), (rows // 2, rows - rows // 2))
    chunks = [
        ChunkStorageMetadata(torch.Size((at, *[0] * len(rest))), torch.Size((count, *rest))) for at, count in parts
    ]
    return [
        replace(
            item,
            index=MetadataIndex(item.index.fqn, chunk.offsets, place),
            type=WriteItemType.SHARD,
            tensor_data=replace(data, chunk=chunk),
        )
        for place, chunk in enumerate(chunks)
    ]


def save(state: dict[str, Any], folder: Path) -> None:
    writer = dcp.FileSystemWriter(folder, thread_count=2, sync_files=False)
    dcp.save(state, storage_writer=writer, planner=InHalves())


def as_meta(tensors: Tensors, heads: dict[str, int]) -> Tensors:
    """The weights of a Llama by Meta's names, with rotated pairs side by side: the inverse of the reading."""
    modules = {
        "self_attn.q_proj": "attention.wq",
        "self_attn.k_proj": "attention.wk",
        "self_attn.v_proj": "attention.wv",
        "self_attn.o_proj": "attention.wo",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        "embed_tokens": "tok_embeddings",
        "lm_head": "output",
    }
    meta = {}
    for name, value in tensors.items():
        for ours, theirs in modules.items():
            if ours in name and (count := heads.get(ours)):
                pairs = [
                    [head[i], head[i + len(head) // 2]] for head in value.chunk(count) for i in range(len(head) // 2)
                ]
                value = torch.stack([row for pair in pairs for row in pair])
            name = name.replace(ours, theirs)
        meta[name.removeprefix("model.")] = value
    return meta


def moments(network: torch.nn.Module) -> dict[str, Any]:
    return {"state": {name: {"exp_avg": p, "step": 3} for name, p in network.named_parameters()}}


LAYOUTS: dict[str, Callable[[Tensors, dict[str, Any]], dict[str, Any]]] = {
    "pytorch_model_fsdp_0": lambda tensors, _: {"model": tensors},
    "": lambda tensors, state: {**tensors, "optimizer": state, "train_state": {"step": 3}},
    "app": lambda tensors, state: {"app": {"model": tensors, "optim": state}},
    "compiled": lambda tensors, state: {"model": {f"_orig_mod.{n}": t for n, t in tensors.items()}, "optimizer": state},
}


def shards(tmp_path: Path, family: str = "llama", layout: str = "", steps: tuple[int, ...] = (5,)) -> Path:
    """A run whose checkpoints hold shards; the config and tokenizer are in the folder above them."""
    run, inside = tmp_path / "run", layout if layout.startswith("pytorch") else ""
    for step in steps:
        network = load_network(save_tiny(family, tmp_path / f"whole-{step}", seed=step), torch.float32, False)
        save(LAYOUTS[layout](network.state_dict(), moments(network)), run / f"checkpoint-{step}" / inside)
    for file in (tmp_path / f"whole-{steps[0]}").glob("*.json"):
        shutil.copy(file, run)
    return run


def logits(network: Any) -> torch.Tensor:
    with torch.inference_mode():
        return network(IDS, use_cache=False).logits


@pytest.mark.parametrize(("layout", "family"), [*((layout, "llama") for layout in LAYOUTS), ("app", "gpt_neox")])
def test_shards_are_the_saved_weights(layout: str, family: str, tmp_path: Path) -> None:
    run = shards(tmp_path, family, layout, steps=(5, 10))
    closed = Lineage.open(run)
    assert [c.step for c in closed.checkpoints] == [5, 10]
    with pytest.raises(CheckpointError, match=r"only as a pickle \(\.distcp shards of FSDP: \d+\)"):
        load_model(closed.checkpoints[0])
    whole = sum(value.nbytes for value in load_network(tmp_path / "whole-5", torch.float32, False).parameters())
    for checkpoint in closed.checkpoints:
        model = load_model(checkpoint, allow_pickle=True)
        expected = logits(load_network(tmp_path / f"whole-{checkpoint.step}", torch.float32, False))
        assert torch.equal(logits(model.network), expected)
        # The optimiser's tensors are not counted, although they lie in the same files.
        assert whole <= weight_bytes(checkpoint, allow_pickle=True) < 3 * whole
    assert len({weight_fingerprint(c, allow_pickle=True) for c in closed.checkpoints}) == 2


@pytest.mark.parametrize("prefix", ["", "model."])
def test_torchtitan_llama_is_renamed_and_reordered(prefix: str, tmp_path: Path) -> None:
    network = load_network(save_tiny("llama", tmp_path / "whole"), torch.float32, False)
    config = network.config
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
    meta = {f"{prefix}{name}": value for name, value in as_meta(network.state_dict(), heads).items()}
    folder = tmp_path / "outputs" / "checkpoint" / "step-10"
    save(meta | {"freqs_cis": torch.ones(4, 2), "optimizer": moments(network), "train_state": {"step": 10}}, folder)
    shutil.copy(tmp_path / "whole" / "config.json", tmp_path / "outputs")
    assert [c.step for c in Lineage.open(tmp_path / "outputs" / "checkpoint").checkpoints] == [10]
    assert torch.equal(logits(load_network(folder, torch.float32, True)), logits(network))
    shutil.rmtree(folder)
    save(meta | {f"{prefix}layers.0.attention.wq.bias": torch.ones(32)}, folder)
    with pytest.raises(CheckpointError, match=r"hold model\.layers\.0\.attention\.wq\.bias"):
        load_network(folder, torch.float32, True)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harmed"),)


def _lose_a_shard(folder: Path) -> None:
    next(folder.glob("*.distcp")).unlink()


def _cut_a_shard(folder: Path) -> None:
    largest = max(folder.glob("*.distcp"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-40])


def _damage_a_shard(folder: Path) -> None:
    largest = max(folder.glob("*.distcp"), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"\0" * largest.stat().st_size)


def _table(change: Callable[[Any], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        metadata = FileSystemReader(folder).read_metadata()
        change(metadata)
        (folder / ".metadata").write_bytes(pickle.dumps(metadata))

    return rewrite


def _lose_a_chunk(metadata: Any) -> None:
    metadata.state_dict_metadata["model.norm.weight"].chunks.pop()


def _leave_the_folder(metadata: Any) -> None:
    next(iter(metadata.storage_data.values())).relative_path = "../../elsewhere"


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a shard is lost": (_lose_a_shard, r"lacks 1 of its \d+ weight shards"),
    "a shard is cut": (_cut_a_shard, "is cut off"),
    "a shard is overwritten": (_damage_a_shard, "cannot be read"),
    "a chunk is lost": (_table(_lose_a_chunk), r"do not cover model\.norm\.weight once"),
    "a path leaves the folder": (_table(_leave_the_folder), "outside its folder"),
    "code": (_table(lambda metadata: setattr(metadata, "planner_data", Harmful())), r"it names pathlib\S*\.Path"),
    "other content": (lambda folder: _other_content(folder), "cannot be read"),
    "no config": (lambda folder: (folder.parent / "config.json").unlink(), r"without the config\.json of their model"),
    "another config": (
        lambda folder: _other_config(folder),
        r"hold model\.embed_tokens\.weight and few of the names of a gpt2",
    ),
}


def _other_content(folder: Path) -> None:
    (folder / ".metadata").write_bytes(b"x" * 90)


def _other_config(folder: Path) -> None:
    shutil.copy(save_tiny("gpt2", folder.parent.parent / "other") / "config.json", folder.parent)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_shards_are_one_line(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shards(tmp_path) / "checkpoint-5"
    change, words = DAMAGE[damage]
    change(folder)
    with pytest.raises(BadInput, match=words) as caught:
        load_model(Checkpoint(str(folder)), allow_pickle=True)
    assert "\n" not in str(caught.value)
    assert not Path("harmed").exists()


def test_a_model_that_is_saved_twice_is_not_guessed(tmp_path: Path) -> None:
    network = load_network(save_tiny("llama", tmp_path / "whole"), torch.float32, False)
    average = {name: value + 1 for name, value in network.state_dict().items()}
    for names, words in ((("model", "ema"), None), (("first", "second"), "2 times, under 'first.' and 'second.'")):
        folder = tmp_path / "-".join(names)
        save({names[0]: network.state_dict(), names[1]: average}, folder)
        shutil.copy(tmp_path / "whole" / "config.json", folder)
        if words is None:
            assert torch.equal(logits(load_network(folder, torch.float32, True)), logits(network))
        else:
            with pytest.raises(CheckpointError, match=re.escape(words)):
                load_network(folder, torch.float32, True)


def test_whole_weights_that_are_saved_without_a_config_take_the_one_above(tmp_path: Path) -> None:
    """Accelerate's save_state writes model.safetensors alone."""
    whole = save_tiny("llama", tmp_path / "run")
    before = logits(load_network(whole, torch.float32, False))
    (tmp_path / "run" / "checkpoint-7").mkdir()
    (whole / "model.safetensors").rename(tmp_path / "run" / "checkpoint-7" / "model.safetensors")
    (checkpoint,) = Lineage.open(tmp_path / "run").checkpoints
    assert checkpoint.step == 7
    assert torch.equal(logits(load_model(checkpoint).network), before)
