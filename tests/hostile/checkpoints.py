"""Checkpoint folders: weights, configs, tokenizers and templates that are cut, nested, of other sizes, endless or run code."""

import json
import os
import shutil
import struct
from pathlib import Path

from ontogeny.lineage import weight_files
from tests.hostile.making import DEEP, Case, header, traced


def weights(content: bytes) -> Case:
    return traced(lambda model: (model / "model.safetensors").write_bytes(content) and None)


def config(**change: object) -> Case:
    def edit(model: Path) -> None:
        told = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(told | change))

    return traced(edit)


def panicking(model: Path) -> None:
    """A tokenizer whose regular expression backtracks without end."""
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    split = {
        "type": "Split",
        "pattern": {"Regex": "(.|.|.|.|.|..)*(.|.|.|..)*[^a-z]$"},
        "behavior": "Isolated",
        "invert": False,
    }
    (model / "tokenizer.json").write_text(json.dumps(tokenizer | {"pre_tokenizer": split}))


def many_tokens(name: str, key: str, *, table: bool = False) -> Case:
    """A tokenizer whose file adds tokens without end."""

    def add(model: Path) -> None:
        told = json.loads((model / name).read_text()) if (model / name).is_file() else {}
        token = {"content": "<x>", "special": True}
        told[key] = {f"{i}": token for i in range(10**5)} if table else [f"<x{i}>" for i in range(10**5)]
        if name == "tokenizer.json":
            told[key] = [token] * 10**5
        (model / name).write_text(json.dumps(told))

    return traced(add)


def template(text: str) -> Case:
    return traced(lambda model: (model / "chat_template.jinja").write_text(text) and None, "--template", "own")


def elsewhere(model: Path) -> None:
    """An index that names a shard in another folder."""
    shutil.move(model / "model.safetensors", model.parent / "outside.safetensors")
    (model / weight_files.SAFETENSORS_INDEX).write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))


def pickled(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")


def with_code(model: Path) -> None:
    """A config that asks for code of its own."""
    told = json.loads((model / "config.json").read_text())
    told |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (model / "config.json").write_text(json.dumps(told))
    (model / "evil.py").write_text("open('pwned', 'w').write('x')\nclass Config: ...\nclass Model: ...\n")


CASES: dict[str, tuple[Case, str]] = {
    "weights empty": (weights(b""), r"cut off or not a safetensors file"),
    "weights git-lfs": (weights(b"version https://git-lfs.github.com/spec/v1\n"), r"git-lfs pointer"),
    "header huge": (weights(struct.pack("<Q", 2**63) + b"{}"), r"cut off or not a safetensors file"),
    "header a list": (weights(header([1, 2])), r"unreadable header"),
    "header nested": (weights(header(DEEP.encode())), r"unreadable header"),
    "header not text": (weights(header(b"\xff" * 16)), r"unreadable header"),
    "header no offsets": (weights(header({"a": {"dtype": "F32", "shape": [1]}})), r"unreadable header"),
    "header no dtype": (
        weights(header({"a": {"shape": [1], "data_offsets": [0, 4]}}) + b"\0" * 4),
        r"unreadable header",
    ),
    "header backwards": (
        weights(header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}})),
        r"unreadable header",
    ),
    "header before the file": (
        weights(header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-4, 4]}}) + b"\0" * 4),
        r"unreadable header",
    ),
    "header endless": (
        weights(header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}}')),
        r"unreadable header",
    ),
    "header texts": (
        weights(header({"a": {"dtype": "F32", "shape": "1", "data_offsets": ["0", "4"]}})),
        r"unreadable header",
    ),
    "header shorter than its shape": (
        weights(header({"a": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 4]}}) + b"\0" * 4),
        r"weights of .* cannot be read|lack",
    ),
    "a shard elsewhere": (traced(elsewhere), r"lacks 1 of its 1 weight shards, first \.\./outside"),
    "index nested": (
        traced(
            lambda m: (
                (m / "model.safetensors").rename(m / "x.bin")
                and (m / weight_files.SAFETENSORS_INDEX).write_text(DEEP)
                and None
            )
        ),
        r"index\.json cannot be read",
    ),
    "index empty": (
        traced(
            lambda m: (
                (m / "model.safetensors").rename(m / "x.bin")
                and (m / weight_files.SAFETENSORS_INDEX).write_text("{}")
                and None
            )
        ),
        r"names no shards",
    ),
    "a pickle": (traced(pickled), r"only as a pickle .* --allow-pickle"),
    "a pickle that calls": (traced(pickled, "--allow-pickle"), r"weights of .* cannot be read"),
    "code beside the weights": (traced(with_code), r"needs Python code of its own"),
    "config nested": (traced(lambda m: (m / "config.json").write_text(DEEP) and None), r"config\.json"),
    "config a list": (traced(lambda m: (m / "config.json").write_text("[]") and None), r"must hold a JSON object"),
    "config no type": (traced(lambda m: (m / "config.json").write_text("{}") and None), r"config\.json|model type"),
    "config number as type": (config(model_type=7), r"."),
    "config no heads": (config(num_attention_heads=0), r"."),
    "config of endless layers": (config(num_hidden_layers=10**5), r"num_hidden_layers in .* must be at most 2,000"),
    "config of more layers": (config(num_hidden_layers=10**12), r"num_hidden_layers in .* must be at most 2,000"),
    "config of many layer types": (config(layer_types=["full_attention"] * 10**5), r"layer_types in .* at most 2,000"),
    "config of endless labels": (config(num_labels=10**7), r"num_labels in .* must be at most 200,000"),
    "config with a text part of endless layers": (
        config(text_config={"num_hidden_layers": 10**9}),
        r"num_hidden_layers in .* must be at most 2,000",
    ),
    "config negative": (config(hidden_size=-8), r"."),
    "config words": (config(num_hidden_layers="many"), r"."),
    "config half heads": (config(num_attention_heads=3), r"."),
    "tokenizer torn": (traced(lambda m: (m / "tokenizer.json").write_text('{"a":') and None), r"no usable tokenizer"),
    "tokenizer nested": (traced(lambda m: (m / "tokenizer.json").write_text(DEEP) and None), r"no usable tokenizer"),
    "weights that lead nowhere": (
        traced(lambda m: (m / "model.safetensors").unlink() or (m / "model.safetensors").symlink_to(m / "no")),
        r"has no weights",
    ),
    "weights that lead to themselves": (
        traced(
            lambda m: (m / "model.safetensors").unlink() or (m / "model.safetensors").symlink_to("model.safetensors")
        ),
        r"has no weights",
    ),
    "weights that never end": (
        traced(lambda m: (m / "model.safetensors").unlink() or os.mkfifo(m / "model.safetensors")),
        r"model\.safetensors is not a regular file",
    ),
    "weights without end": (
        traced(lambda m: (m / "model.safetensors").unlink() or (m / "model.safetensors").symlink_to("/dev/zero")),
        r"model\.safetensors is not a regular file",
    ),
    "weights that are a folder": (
        traced(lambda m: (m / "model.safetensors").unlink() or (m / "x.safetensors").mkdir()),
        r"has no weights",
    ),
    "config that never ends": (
        traced(lambda m: (m / "config.json").unlink() or os.mkfifo(m / "config.json")),
        r"config\.json is not a regular file",
    ),
    "config of a giant": (config(vocab_size=10**12), r"cannot be read|no network can be built"),
    "config of other activations": (config(hidden_act="os.system"), r"."),
    "tokenizer that panics": (
        traced(panicking),
        r"the tokenizer cannot read the texts \(Onig: Regex search error: retry-limit-in-match over\)",
    ),
    "special tokens without end": (
        many_tokens("tokenizer_config.json", "additional_special_tokens"),
        r"tokenizer_config\.json must add at most 20,000 tokens, got 100,000",
    ),
    "extra tokens without end": (
        many_tokens("special_tokens_map.json", "additional_special_tokens"),
        r"special_tokens_map\.json must add at most 20,000 tokens, got 100,000",
    ),
    "decoded tokens without end": (
        many_tokens("tokenizer_config.json", "added_tokens_decoder", table=True),
        r"tokenizer_config\.json must add at most 20,000 tokens, got 100,000",
    ),
    "added tokens without end": (
        many_tokens("tokenizer.json", "added_tokens"),
        r"tokenizer\.json must add at most 20,000 tokens, got 100,\d\d\d",
    ),
    "template that loops in one step": (template("{{ 10 ** (10 ** 9) }}"), r"takes more than 0\.5 s"),
    "template that loops": (
        template("{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3),
        r"takes more than 0\.5 s",
    ),
    "template that multiplies": (
        template("{{ messages[0].content * 10**6 }}"),
        r"it writes 19,000,000 characters|takes more than 0\.5 s",
    ),
    "template that doubles": (
        template(
            "{% set n = namespace(x='a') %}{% for i in range(25) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
        ),
        r"it writes 33,554,432 characters|takes more than 0\.5 s",
    ),
    "template that breaks out": (
        traced(
            lambda m: (m / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}") and None, "--template", "own"
        ),
        r"chat template of the tokenizer cannot be rendered .*unsafe",
    ),
}
