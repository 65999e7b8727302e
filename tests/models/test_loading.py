"""Loading: every stored tensor has its place or is named, wrappers' names are mapped, and the tokenizer is the checkpoint's own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.lineage import Checkpoint, fetch_checkpoint, weight_fingerprint
from ontogeny.models.loading import ModelOptions, load_network, nearest_tokenizer
from ontogeny.models.model import load_model
from ontogeny.models.reusable import ReusableModel
from ontogeny.models.stored_tensors import looks_untrained
from tests.helpers.tiny_models import save_tiny

Tensors = dict[str, torch.Tensor]


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    path = folder / "model.safetensors"
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    save_file(change(tensors), path, metadata={"format": "pt"})
    return folder


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return load_network(folder, torch.float32, False)(torch.tensor([[5, 17, 40, 9]]), use_cache=False).logits


BIAS = "model.layers.0.self_attn.q_proj.bias"
EXTRA = {
    "bias": {BIAS: torch.ones(32)},
    "layer": {"model.layers.77.mlp.up_proj.weight": torch.ones(4, 4)},
    "norm": {"model.norm.bias": torch.ones(32)},
    "unmerged LoRA": {"model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.ones(2, 32)},
    "head": {"lm_head.bias": torch.ones(8)},
    "scale": {"model.layers.0.mlp.up_proj.weight_scale_inv": torch.ones(1)},
}


@pytest.mark.parametrize("extra", EXTRA)
def test_rejects_tensors_without_a_place(extra: str, tmp_path: Path) -> None:
    folder = rewrite(save_tiny("llama", tmp_path / "m"), lambda t: t | EXTRA[extra])
    with pytest.raises(CheckpointError, match=f"hold {next(iter(EXTRA[extra]))}") as caught:
        load_network(folder, torch.float32, False)
    assert ("LoRA" in str(caught.value)) == (extra == "unmerged LoRA")


@pytest.mark.parametrize(
    "name", ["v_head.summary.weight", "model.layers.0.self_attn.rotary_emb.inv_freq", "score.weight"]
)
def test_tensors_outside_the_network_do_not_matter(name: str, tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "m")
    before = logits(folder)
    assert torch.equal(logits(rewrite(folder, lambda t: t | {name: torch.ones(4)})), before)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_rejects_integers_and_scaled_floats(dtype: torch.dtype, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    folder = rewrite(save_tiny("llama", tmp_path / "m"), lambda t: t | {name: t[name].to(dtype)})
    with pytest.raises(CheckpointError, match="as integers or scaled floats"):
        load_network(folder, torch.float32, False)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "base_model.model.", "_fsdp_wrapped_module."]
)
def test_names_of_wrappers_are_mapped(family: str, prefix: str, tmp_path: Path) -> None:
    folder, plain = save_tiny(family, tmp_path / "m", seed=1), save_tiny(family, tmp_path / "plain", seed=2)
    before = logits(folder)
    rewrite(folder, lambda t: {prefix + name: value for name, value in t.items()})
    assert torch.equal(logits(folder), before)
    reusable = ReusableModel(ModelOptions())  # wrapped after plain weights in the same network
    for path, expected in ((plain, logits(plain)), (folder, before), (plain, logits(plain))):
        model, _ = reusable.load(path)
        with torch.inference_mode():
            assert torch.allclose(model.network(torch.tensor([[5, 17, 40, 9]]), use_cache=False).logits, expected)


def test_a_wrapper_inside_of_names_is_mapped(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "m")
    before = logits(folder)
    rewrite(folder, lambda t: {name.replace("layers.0.", "layers.0._orig_mod."): value for name, value in t.items()})
    assert torch.equal(logits(folder), before)


@pytest.mark.parametrize("prefix", ["", "_fsdp_wrapped_module."])
def test_whole_weights_gathered_from_fsdp_are_read_with_permission(prefix: str, tmp_path: Path) -> None:
    folder = save_tiny("gpt_neox", tmp_path / "m")
    before = logits(folder)
    tensors = {prefix + name: value for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model_fsdp.bin")
    with pytest.raises(CheckpointError, match=r"only as a pickle \(pytorch_model_fsdp.bin\)"):
        load_network(folder, torch.float32, False)
    network = load_network(folder, torch.float32, True)
    with torch.no_grad():
        assert torch.equal(network(torch.tensor([[5, 17, 40, 9]]), use_cache=False).logits, before)


@pytest.mark.parametrize(
    ("settings", "package"),
    [({"load_in_4bit": True}, "bitsandbytes"), ({"quant_method": "awq", "bits": 4}, "gptqmodel")],
    ids=["bitsandbytes", "awq"],
)
def test_quantised_weights_name_the_package_that_reads_them(
    settings: dict, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny("llama", tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    monkeypatch.setattr("ontogeny.models.loading.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=f"which needs the package {package}: install it, or save them in BF16"):
        load_network(folder, torch.float32, False)


@pytest.mark.parametrize("stored", ["policy.", "nested", "module"])
def test_weights_of_other_names_are_shown(stored: str, tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    content: dict[str, object] | torch.nn.Module = {"state_dict": tensors}
    if stored == "policy.":
        rewrite(folder, lambda t: {f"policy.{n}": v for n, v in t.items()})
    else:
        (folder / "model.safetensors").unlink()
        torch.save(content if stored == "nested" else torch.nn.Linear(2, 2), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError) as caught:
        load_network(folder, torch.float32, True)
    line = str(caught.value)
    words = {"policy.": "such as policy.model.embed_tokens", "nested": "such as state_dict", "module": "cannot be read"}
    assert words[stored] in line
    assert "\n" not in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("kind", "words"), [("fp8", "are quantised .fp8. and cannot be read"), ("made_up", "as integers")]
)
def test_quantised_weights_of_other_kinds_are_never_read_as_they_are_stored(
    kind: str, words: str, tmp_path: Path
) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    folder = rewrite(save_tiny("llama", tmp_path / "m"), lambda t: t | {name: t[name].to(torch.int8)})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": kind}}))
    with pytest.raises(CheckpointError, match=words) as caught:
        load_network(folder, torch.float32, False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["value_head", "optimizer", "model.fp16", "consolidated", "model-00001-of-00001"])
def test_other_safetensors_are_not_the_weights(other: str, tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "m")
    before = weight_fingerprint(Checkpoint(str(folder)))
    shutil.copy(folder / "model.safetensors", folder / f"{other}.safetensors")
    assert weight_fingerprint(Checkpoint(str(folder))) == before
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=rf"{other}\.safetensors is not a name that transformers loads: rename it"
    ):
        fetch_checkpoint(Checkpoint(str(folder)))
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="only as a pickle"):
        fetch_checkpoint(Checkpoint(str(folder)))
    (folder / f"{other}.safetensors").write_bytes(b"changed")
    alone = weight_fingerprint(Checkpoint(str(folder)), allow_pickle=True)
    (folder / f"{other}.safetensors").unlink()
    assert weight_fingerprint(Checkpoint(str(folder)), allow_pickle=True) == alone


def add_token(folder: Path, token: str) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    first = len(content["model"]["vocab"])
    names = [*(f"[unused {i}]" for i in range(first, rows)), token]
    content["added_tokens"] += [{"id": first + i, "content": name} | flags for i, name in enumerate(names)]
    path.write_text(json.dumps(content))


def test_an_added_token_without_a_row_is_refused_only_where_a_text_holds_it(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "m")
    add_token(folder, "[PAD]")
    model = load_model(folder)
    run = lambda text: model.network(torch.tensor([model.tokenizer(text)["input_ids"]]))  # noqa: E731
    run("a text")
    with pytest.raises(BadInput, match=r"holds the token '\[PAD\]'"):
        run("a [PAD] text")
    reusable = ReusableModel(ModelOptions())
    for _ in range(2):
        reusable.load(folder)


@pytest.mark.parametrize("own", ["vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "tokenizer_config.json"])
def test_own_tokenizer_wins_over_that_of_the_folder_above(own: str, tmp_path: Path) -> None:
    folder = tmp_path / "top" / "m"
    folder.mkdir(parents=True)
    (tmp_path / "top" / "tokenizer.json").write_text("{}")
    assert nearest_tokenizer(folder) == tmp_path / "top"
    (folder / own).write_text("{}")
    assert nearest_tokenizer(folder) == folder


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "bert"])
def test_trained_normalisations_do_not_look_untrained(family: str, tmp_path: Path) -> None:
    folder = save_tiny(family, tmp_path / "m")

    def gains(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Tensors]:
        norms = ("norm.weight", "layernorm.weight", "LayerNorm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")
        return lambda t: {n: change(v) if n.endswith(norms) else v for n, v in t.items()}

    assert looks_untrained(rewrite(folder, gains(torch.ones_like)))
    assert not looks_untrained(rewrite(folder, gains(lambda v: v + torch.linspace(0, 1e-3, v.numel()))))
