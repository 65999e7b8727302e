"""Model folders: complete ones pass, damage is named in one line, fingerprints depend on the weights only."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.lineage import (
    Checkpoint,
    Lineage,
    checkpoint_files,
    fetch,
    fetch_checkpoint,
    weight_bytes,
    weight_fingerprint,
)


def weights(seed: int = 0, size: int = 200) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(size, 8)).astype(np.float32), "b": rng.normal(size=8).astype(np.float32)}


def model(folder: Path, seed: int = 0) -> Checkpoint:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "gpt_neox"}')
    (folder / "tokenizer.json").write_text("{}")
    save_file(weights(seed), folder / "model.safetensors")
    return Checkpoint(str(folder))


def sharded(folder: Path) -> Checkpoint:
    checkpoint = model(folder)
    (folder / "model.safetensors").unlink()
    for number, (name, value) in enumerate(weights().items(), 1):
        save_file({name: value}, folder / f"model-0000{number}-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return checkpoint


def test_complete_folders_pass(tmp_path: Path) -> None:
    one, many = model(tmp_path / "one"), sharded(tmp_path / "many")
    assert weight_bytes(one) == (tmp_path / "one" / "model.safetensors").stat().st_size
    assert [file.name for file in checkpoint_files(many).weights] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert checkpoint_files(one).small_files == ("config.json", "tokenizer.json")
    assert fetch_checkpoint(one) == tmp_path / "one"


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def grown(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"x")


def emptied(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 10\n")


def no_table(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[8:12] = b"\xff\xff\xff\xff"
    path.write_bytes(content)


def renamed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.npz")


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def bad_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def list_config(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def adapter(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def deepspeed(folder: Path) -> None:
    renamed(folder)
    (folder / "zero_to_fp32.py").touch()


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "cut off"),
        (grown, "too long"),
        (emptied, "cut off"),
        (pointer, "git lfs pull"),
        (no_table, "unreadable header"),
        (renamed, "no weights"),
        (no_config, "no config.json"),
        (bad_config, "cannot be read"),
        (list_config, "must hold a JSON object"),
        (pickled, "`allow_pickle`"),
        (adapter, "LoRA adapter without adapter_config.json"),
        (deepspeed, "zero_to_fp32"),
        (gone, "is not a folder"),
    ],
)
def test_damage_is_named_in_one_line(tmp_path: Path, damage, words: str) -> None:
    checkpoint = model(tmp_path / "m")
    checkpoint_files(checkpoint)
    damage(tmp_path / "m")
    for look in (checkpoint_files, fetch_checkpoint, weight_fingerprint, weight_bytes):
        with pytest.raises(CheckpointError, match=words) as caught:
            look(checkpoint)
        assert "\n" not in str(caught.value)
        assert str(tmp_path / "m") in str(caught.value)


def test_rejects_missing_and_truncated_shards(tmp_path: Path) -> None:
    checkpoint = sharded(tmp_path / "m")
    second = tmp_path / "m" / "model-00002-of-00002.safetensors"
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is cut off"):
        checkpoint_files(checkpoint)
    second.unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 of its 2 weight shards, first model-00002"):
        checkpoint_files(checkpoint)
    second.write_bytes(content)
    checkpoint_files(checkpoint)
    (tmp_path / "m" / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(CheckpointError, match="names no shards"):
        checkpoint_files(checkpoint)


def test_pickles_need_permission(tmp_path: Path) -> None:
    checkpoint = model(tmp_path / "m")
    pickled(tmp_path / "m")
    assert [file.name for file in checkpoint_files(checkpoint, allow_pickle=True).weights] == ["pytorch_model.bin"]
    assert fetch_checkpoint(checkpoint, allow_pickle=True) == tmp_path / "m"
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty"):
        checkpoint_files(checkpoint, allow_pickle=True)


def test_fingerprint_follows_the_weights_and_not_the_folder(tmp_path: Path) -> None:
    first = weight_fingerprint(model(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    (tmp_path / "elsewhere" / "b" / "tokenizer.json").write_text('{"other": 1}')
    assert weight_fingerprint(Checkpoint(str(tmp_path / "elsewhere" / "b"))) == first
    assert weight_fingerprint(model(tmp_path / "c", seed=1)) != first
    changed = weights()
    changed["b"][3] += 1e-6
    save_file(changed, tmp_path / "a" / "model.safetensors")
    assert weight_fingerprint(Checkpoint(str(tmp_path / "a"))) != first


def test_sampled_fingerprint_detects_a_change_in_every_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_HASH_WHOLE_BELOW", 1000)
    big = weights(size=20_000)
    checkpoint = model(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    save_file(big, path)
    first = weight_fingerprint(checkpoint)
    # An optimiser step or a rank-one edit moves a whole matrix; a bias may be one block.
    for name in big:
        moved = {**big, name: big[name] + np.float32(1e-3)}
        save_file(moved, path)
        assert weight_fingerprint(checkpoint) != first
    save_file({**big, "a": np.roll(big["a"], 1, axis=0)}, path)
    assert weight_fingerprint(checkpoint) != first
    save_file(big, path)
    assert weight_fingerprint(checkpoint) == first
    # What it does not see is said in its docstring: one number between two samples.
    content = bytearray(path.read_bytes())
    data = 8 + int.from_bytes(content[:8], "little")
    content[data + 20_000] ^= 1
    path.write_bytes(content)
    assert weight_fingerprint(checkpoint) == first


def test_sampled_fingerprint_of_a_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_HASH_WHOLE_BELOW", 1000)
    checkpoint = model(tmp_path / "m")
    pickled(tmp_path / "m")
    path = tmp_path / "m" / "pytorch_model.bin"
    first = weight_fingerprint(checkpoint, allow_pickle=True)
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    assert weight_fingerprint(checkpoint, allow_pickle=True) != first


FORMATS = {
    "pytorch_model_fsdp_0/__0_0.distcp": "FSDP shards without their .metadata: convert them with `accelerate merge-weights`",
    "__0_0.distcp": "accelerate merge-weights",
    ".metadata": "accelerate merge-weights",
    "global_step100/mp_rank_00_model_states.pt": "zero_to_fp32",
    "zero_to_fp32.py": "zero_to_fp32",
    "zero_pp_rank_0_mp_rank_00_optim_states.pt": "zero_to_fp32",
    "mp_rank_00/model_optim_rng.pt": "Megatron shards",
    "iter_0001000/x": "Megatron shards",
    "latest_checkpointed_iteration.txt": "Megatron shards",
    "model.Q4_K_M.gguf": "GGUF weights",
    "flax_model.msgpack": "Flax weights",
    "tf_model.h5": "TensorFlow weights",
    "consolidated.00.pth": "Meta's format",
    "params.json": "Meta's format",
}


@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("place", ["", "checkpoint-5"])
@pytest.mark.parametrize("config", [False, True])
def test_other_formats_are_named_with_their_converter(file: str, place: str, config: bool, tmp_path: Path) -> None:
    folder = tmp_path / "out" / place
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_bytes(b"x")
    (folder / "optimizer.pt").touch()
    if config:
        (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(BadInput, match=FORMATS[file]) as caught:
        checkpoint_files(Lineage.open(tmp_path / "out").checkpoints[0])
    assert "\n" not in str(caught.value)
