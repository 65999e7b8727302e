"""Weights, tokenizers and architectures that are missing, truncated, of another shape or unsupported."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ontogeny.architectures import gpt_neox
from tests.flows.bad_input.place import Place, Refuses, everything, one_line
from tests.helpers.subprocesses import python
from tests.helpers.tiny_models import VOCAB, byte_tokenizer


def sharded(place: Place) -> Path:
    folder = place.folder / "model"
    AutoModelForCausalLM.from_pretrained(place.model).save_pretrained(folder, max_shard_size="40KB")
    AutoTokenizer.from_pretrained(place.model).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def missing_shard(place: Place) -> list[str]:
    folder = sharded(place)
    (folder / "model-00002-of-00003.safetensors").unlink(missing_ok=True)
    sorted(folder.glob("*.safetensors"))[-1].unlink()
    return place.trace(folder)


def truncated_shard(place: Place) -> list[str]:
    folder = sharded(place)
    path = sorted(folder.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-100])
    return place.trace(folder)


def truncated_weights(place: Place) -> list[str]:
    folder = place.copy()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    return place.trace(folder)


def lfs_pointer(place: Place) -> list[str]:
    folder = place.copy()
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    return place.trace(folder)


def no_weights(place: Place) -> list[str]:
    folder = place.copy()
    (folder / "model.safetensors").unlink()
    return place.trace(folder)


def pickle_only(place: Place) -> list[str]:
    folder = place.copy()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return place.trace(folder)


def not_finite(place: Place) -> list[str]:
    network = AutoModelForCausalLM.from_pretrained(place.model)
    with torch.no_grad():
        network.gpt_neox.layers[1].mlp.dense_h_to_4h.weight[3, 4] = torch.nan
    folder = place.copy()
    network.save_pretrained(folder)
    return place.trace(folder)


def other_shape(place: Place) -> list[str]:
    folder = place.copy()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    return place.trace(folder)


def more_layers(place: Place) -> list[str]:
    folder = place.copy()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    return place.trace(folder)


def broken_config(place: Place) -> list[str]:
    folder = place.copy()
    (folder / "config.json").write_text('{"model_type": "gpt_')
    return place.trace(folder)


def unknown_architecture(place: Place) -> list[str]:
    folder = place.folder / "model"
    config = AutoConfig.for_model(
        "phimoe",
        num_local_experts=2,
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return place.trace(folder)


def no_language_model(place: Place) -> list[str]:
    folder = place.copy()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nonesuch"}))
    return place.trace(folder)


def unfit_architecture(place: Place, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    table = replace(gpt_neox.architecture, mlp="attention")
    monkeypatch.setattr(gpt_neox, "architecture", table)
    return place.trace()


def no_tokenizer(place: Place) -> list[str]:
    folder = place.copy()
    for path in folder.glob("*token*"):
        path.unlink()
    return place.trace(folder)


def broken_tokenizer(place: Place) -> list[str]:
    folder = place.copy()
    (folder / "tokenizer.json").write_text("{}")
    return place.trace(folder)


def foreign_tokenizer(place: Place) -> list[str]:
    folder = place.copy()
    byte_tokenizer().save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {f"extra{i}": len(content["model"]["vocab"]) + i for i in range(100)}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return place.trace(folder)


def tokenizer_nowhere(place: Place) -> list[str]:
    return place.trace(None, None, "--tokenizer", str(place.folder / "nowhere"))


def empty_folder(place: Place) -> list[str]:
    (place.folder / "model").mkdir()
    return place.trace(place.folder / "model")


def folder_of_texts(place: Place) -> list[str]:
    (place.folder / "model").mkdir()
    (place.folder / "model" / "notes.txt").write_text("no model")
    return place.trace(place.folder / "model")


MODELS: dict[Callable[..., list[str]], str] = {
    missing_shard: r"lacks \d of its \d+ weight shards, first model-0000\d.*fetch or save it again",
    truncated_shard: r"model-00002-of-\d+\.safetensors is cut off.*fetch or save it again",
    truncated_weights: r"model\.safetensors is cut off.*fetch or save it again",
    lfs_pointer: r"git-lfs pointer.*`git lfs pull`",
    no_weights: r"has no weights.*save_pretrained",
    pickle_only: r"only as a pickle.*--allow-pickle",
    not_finite: r"are not finite \(gpt_neox\.layers\.1\.mlp\.dense_h_to_4h\.weight holds NaN or Inf\).*diverged",
    other_shape: r"have another shape for .*dense.*config requires.*again",
    more_layers: r"lack gpt_neox\.layers\.2.*config requires.*again",
    broken_config: r"config\.json cannot be read.*(again|checkpoint)",
    unknown_architecture: r"no architecture table supports models of type 'phimoe' \(.*no MLP.*\): add one .* known types are .*gpt_neox",
    no_language_model: r"nonesuch.*",
    unfit_architecture: r"gpt_neox does not fit its architecture table \(.*\): correct the table",
    no_tokenizer: r"no usable tokenizer in .*--tokenizer",
    broken_tokenizer: r"no usable tokenizer in .*--tokenizer",
    foreign_tokenizer: r"has 359 tokens but the model embeds 300, .*--tokenizer",
    tokenizer_nowhere: r"no usable tokenizer in .*nowhere.*--tokenizer",
    empty_folder: r"is empty: give a folder",
    folder_of_texts: r"holds no model.*checkpoint-N",
}


@pytest.mark.parametrize(("make", "expected"), MODELS.items(), ids=lambda v: getattr(v, "__name__", ""))
def test_models(make, expected, place: Place, refuses: Refuses, monkeypatch) -> None:
    argv = make(place, monkeypatch) if "monkeypatch" in make.__annotations__ else make(place)
    refuses(argv, expected)


def test_new_parent_folders_are_removed_after_an_error(place: Place, refuses: Refuses) -> None:
    argv = no_tokenizer(place)
    argv[argv.index("-o") + 1] = str(place.folder / "deep" / "er" / "out")
    refuses(argv, "no usable tokenizer")
    (place.folder / "deep").mkdir()
    refuses(argv, "no usable tokenizer")  # what was there before stays


@pytest.mark.parametrize("make", [not_finite, unknown_architecture, no_tokenizer])
def test_as_a_real_command(make, place: Place) -> None:
    argv, before = make(place), everything(place.folder)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = python("from ontogeny.cli import main; main()", *argv, "--quiet", env=env)
    assert re.search(MODELS[make], one_line(done.stderr))
    assert done.stderr.count("\n") == 1
    assert (done.returncode, done.stdout) == (2, "")
    assert everything(place.folder) == before
