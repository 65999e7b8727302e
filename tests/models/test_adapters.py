"""LoRA folders: merged in memory they equal the merged twin, their base model is found, and other adapters are refused."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ontogeny.activations.cache import cache_key
from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput, CheckpointError
from ontogeny.jobs.audit.audit import audit
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Checkpoint, Lineage, weight_bytes, weight_fingerprint
from ontogeny.lineage.fetch import adapter_base
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import ModelOptions, load_network, nearest_tokenizer, read_config
from ontogeny.models.model import open_model
from ontogeny.models.reusable import ReusableModel
from tests.helpers.planted_lineages import rows, write
from tests.helpers.tiny_models import save_tiny

TARGETS = {
    "llama": ("q_proj", "v_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj"),
    "gpt_neox": ("query_key_value", "dense_h_to_4h"),
}
IDS = torch.tensor([[5, 17, 40, 9]])


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        return load_network(folder, torch.float32, False)(IDS, use_cache=False).logits


def save_adapter(
    base: Path, folder: Path, twin: Path, *, family: str = "llama", seed: int = 0, infix: str = "", **settings: object
) -> Path:
    """A LoRA folder of a base model and its twin, merged by hand from the definition."""
    generator, rank = torch.Generator().manual_seed(seed), 4
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "base_model_name_or_path": str(base), **settings}
    network, tensors = load_network(base, torch.float32, False), {}
    for name, module in network.named_modules():
        if name.split(".")[-1] not in TARGETS[family]:
            continue
        weight, flipped = module.weight.data, not isinstance(module, torch.nn.Linear)
        out, inside = weight.T.shape if flipped else weight.shape
        a, b = torch.randn(rank, inside, generator=generator), torch.randn(out, rank, generator=generator) / 10
        tensors |= {
            f"base_model.model.{name}.lora_A{infix}.weight": a,
            f"base_model.model.{name}.lora_B{infix}.weight": b,
        }
        alpha = 2 if "alpha_pattern" in settings and name.endswith("q_proj") else 16
        scale = alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank
        merged = (weight.T if flipped else weight) + scale * b @ a
        if settings.get("use_dora"):
            size = torch.rand(out, generator=generator) + 0.5
            tensors[f"base_model.model.{name}.lora_magnitude_vector{infix}.weight"] = size
            merged = size[:, None] * merged / merged.norm(dim=1, keepdim=True)
        module.weight.data = (merged.T if flipped else merged).contiguous()
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    network.save_pretrained(twin)
    return folder


@pytest.mark.parametrize("family", TARGETS)
@pytest.mark.parametrize(
    ("infix", "settings"),
    [
        ("", {}),
        (".default", {}),
        ("", {"use_rslora": True}),
        ("", {"use_dora": True}),
        ("", {"alpha_pattern": {"q_proj": 2}}),
    ],
)
def test_merged_adapter_equals_its_twin(family: str, infix: str, settings: dict[str, object], tmp_path: Path) -> None:
    base = save_tiny(family, tmp_path / "base")
    folder = save_adapter(base, tmp_path / "lora", tmp_path / "twin", family=family, infix=infix, **settings)
    assert torch.allclose(logits(folder), logits(tmp_path / "twin"), atol=1e-5)
    assert not torch.allclose(logits(folder), logits(base), atol=1e-3)


def test_whole_modules_embeddings_and_biases_are_replaced(tmp_path: Path) -> None:
    base = save_tiny("mistral", tmp_path / "base")
    folder = save_adapter(base, tmp_path / "lora", tmp_path / "twin")
    tensors, twin = load_file(folder / "adapter_model.safetensors"), load_file(tmp_path / "twin" / "model.safetensors")
    head, table = torch.randn_like(twin["lm_head.weight"]), twin["model.embed_tokens.weight"]
    a, b = torch.randn(4, table.shape[0]), torch.randn(table.shape[1], 4)
    tensors |= {
        "base_model.model.lm_head.modules_to_save.weight": head,
        "base_model.model.model.embed_tokens.lora_embedding_A": a,
        "base_model.model.model.embed_tokens.lora_embedding_B": b,
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    twin |= {"lm_head.weight": head, "model.embed_tokens.weight": table + 4 * (b @ a).T}
    save_file(twin, tmp_path / "twin" / "model.safetensors", metadata={"format": "pt"})
    assert torch.allclose(logits(folder), logits(tmp_path / "twin"), atol=1e-4)


@pytest.mark.parametrize("written", ["{base}", "../base", "base", "/data/somebody/project/base"])
def test_base_model_is_found_where_it_is_now(written: str, tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base")
    folder = save_adapter(base, tmp_path / "sft" / "checkpoint-10", tmp_path / "twin")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = written.format(base=base)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    found = adapter_base(Checkpoint(str(folder)))
    assert found is not None
    assert Path(found.source).resolve() == base
    assert read_config(folder).model_type == "llama"
    assert nearest_tokenizer(folder) is not None
    assert weight_bytes(Checkpoint(str(folder))) > weight_bytes(Checkpoint(str(base)))


def test_a_base_model_elsewhere_is_a_repository(tmp_path: Path) -> None:
    folder = save_adapter(save_tiny("llama", tmp_path / "base"), tmp_path / "lora", tmp_path / "twin")
    for name, expected in (("owner/name", "owner/name"), ("/nowhere/at all", None), (None, None)):
        config = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": name}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        if expected:
            found = adapter_base(Checkpoint(str(folder)))
            assert found is not None
            assert (found.source, found.revision) == (expected, "main")
        else:
            with pytest.raises(CheckpointError, match="base model"):
                adapter_base(Checkpoint(str(folder)))


def test_fingerprint_follows_adapter_and_base(tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base")
    folder = save_adapter(base, tmp_path / "lora", tmp_path / "twin")
    first = weight_fingerprint(Checkpoint(str(folder)))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 8}))
    assert weight_fingerprint(Checkpoint(str(folder))) != first
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert weight_fingerprint(Checkpoint(str(folder))) == first
    save_tiny("llama", base, seed=9)
    assert weight_fingerprint(Checkpoint(str(folder))) != first


@pytest.mark.parametrize(
    ("settings", "tensors", "words"),
    [
        ({"peft_type": "IA3"}, {}, "kind IA3"),
        ({"peft_type": "PREFIX_TUNING"}, {}, "kind PREFIX_TUNING"),
        ({"lora_bias": True}, {}, "lora_bias"),
        (
            {},
            {"base_model.model.model.layers.99.mlp.up_proj.lora_A.weight": torch.ones(4, 8)},
            r"changes model\.layers\.99",
        ),
        ({}, {"base_model.model.model.norm.bias": torch.ones(3)}, r"changes model\.norm\.bias"),
        ({}, {"base_model.model.model.layers.0.mlp.up_proj.ia3_l": torch.ones(3)}, "ia3_l"),
    ],
)
def test_rejects_other_adapters_and_other_bases(
    settings: dict[str, object], tensors: dict[str, torch.Tensor], words: str, tmp_path: Path
) -> None:
    folder = save_adapter(save_tiny("llama", tmp_path / "base"), tmp_path / "lora", tmp_path / "twin", **settings)
    path = folder / "adapter_model.safetensors"
    save_file(load_file(path) | tensors, path)
    with pytest.raises(CheckpointError, match=words):
        load_network(folder, torch.float32, False)


def test_a_lineage_of_adapters_is_audited_and_reused(tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base")
    for step in (10, 20):
        save_adapter(base, tmp_path / "sft" / f"checkpoint-{step}", tmp_path / "twins" / str(step), seed=step)
    for file in (tmp_path / "sft" / "checkpoint-20").iterdir():  # the trainer's final adapter is its last checkpoint
        shutil.copy(file, tmp_path / "sft")
    shutil.rmtree(tmp_path / "twins")
    lineage = Lineage.open(tmp_path, stage="x")
    assert [(c.stage, c.step) for c in lineage.checkpoints] == [("base", None), ("sft", 10), ("sft", 20)]
    found = audit(lineage, deep=True).findings
    assert [f.kind for f in found] == []
    reusable = ReusableModel(ModelOptions())
    for checkpoint in (*lineage.checkpoints, lineage.checkpoints[1]):
        model, _ = reusable.load(Path(checkpoint.source))
        expected = open_model(checkpoint).network(IDS, use_cache=False).logits
        assert torch.allclose(model.network(IDS, use_cache=False).logits, expected, atol=1e-6)
    (base / "config.json").unlink()
    with pytest.raises(BadInput, match="base"):
        open_model(lineage.checkpoints[1])


def test_traced_lineage_of_adapters_equals_its_merged_twin(tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base")
    for step in (10, 20):
        save_adapter(
            base, tmp_path / "lora" / f"checkpoint-{step}", tmp_path / "twin" / f"checkpoint-{step}", seed=step
        )
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(base / name, tmp_path / "twin" / f"checkpoint-{step}")
    concept = Concept.from_file(write(tmp_path / "c.csv", rows()))
    settings = TraceSettings(
        sites="resid,head", fits=("logistic",), kernels=("linear",), resamples=100, permutations=100, untrained=False
    )
    traced = [
        trace(Lineage.open(tmp_path / kind), [concept], tmp_path / f"run-{kind}", settings) for kind in ("lora", "twin")
    ]
    keys = ["step", "site", "metric", "method", "control", "split", "coords"]
    numbers = []
    for run in traced:
        found = run.records("metric in ('auroc', 'accuracy', 'nats_bound', 'nhsic_ty', 'cosine_final', 'fragility')")
        found["coords"] = found["coords"].map(str)
        numbers.append(found.sort_values(keys).reset_index(drop=True))
    ours, theirs = numbers
    assert len(ours) > 100
    assert ours[keys].equals(theirs[keys])
    torch.testing.assert_close(
        torch.tensor(ours["value"]), torch.tensor(theirs["value"]), rtol=1e-5, atol=1e-5, equal_nan=True
    )
    directions = [
        [run.directions(unit) for unit in sorted(run.headers(), key=lambda u: run.headers()[u]["step"])]
        for run in traced
    ]
    for left, right in zip(*directions, strict=True):
        for name, tensor in left.items():
            scale = float(torch.as_tensor(tensor).abs().max())
            torch.testing.assert_close(torch.as_tensor(tensor), torch.as_tensor(right[name]), rtol=0, atol=1e-5 * scale)


def test_adapter_has_a_cache_key_of_its_base(tmp_path: Path) -> None:
    concept = Concept.from_file(write(tmp_path / "c.csv", rows(characters=12)))
    folder = save_adapter(save_tiny("llama", tmp_path / "base"), tmp_path / "lora", tmp_path / "twin")
    keys = {cache_key("w", at, "t", concept, ("resid",), device="cpu") for at in (folder, tmp_path / "base")}
    assert len(keys) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_alpha": "many"},
        {"lora_alpha": None},
        {"alpha_pattern": {"(": 2}},
        {"peft_type": 7},
        {"base_model_name_or_path": "x" * 5000},
        {"base_model_name_or_path": "~nobody-here/base"},
        {"base_model_name_or_path": "a\0b/c/d"},
        {"base_model_name_or_path": 7},
        {"base_model_name_or_path": "."},
    ],
)
def test_damaged_adapter_config_is_one_line(settings: dict[str, object], tmp_path: Path) -> None:
    folder = save_adapter(save_tiny("llama", tmp_path / "base"), tmp_path / "lora", tmp_path / "twin")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | settings))
    with pytest.raises(BadInput) as caught:
        load_network(folder, torch.float32, False)
    assert "\n" not in str(caught.value)
