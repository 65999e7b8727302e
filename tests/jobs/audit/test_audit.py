"""The audit finds each planted fault in local folders and in metadata, and raises no false alarm."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ontogeny.jobs.audit.audit import audit, audit_for_run
from ontogeny.jobs.audit.checks import shared_shards, spacing_gaps
from ontogeny.jobs.audit.metadata import CheckpointMetadata
from ontogeny.jobs.audit.weight_norms import _outlying_norms
from ontogeny.lineage import Checkpoint, Lineage, WeightFile
from ontogeny.lineage.weight_files import SAFETENSORS_INDEX
from ontogeny.models import loading
from ontogeny.storage.run import Run
from tests.helpers.tiny_models import save_tiny, tiny_model

STEPS = (0, 1000, 2000, 3000, 4000, 5000)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose norms grow fast at first, with a tokenizer and a template."""
    top = tmp_path_factory.mktemp("sound")
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(16, 8, generator=generator)
    for place, step in enumerate(STEPS):
        folder = top / f"checkpoint-{step}"
        folder.mkdir()
        grown = start * (1.0 + 3.0 * place / (1.0 + place)) + 0.05 * torch.randn(16, 8, generator=generator)
        save_shards(folder, {"a.weight": grown, "b.weight": grown.T.contiguous(), "b.bias": grown[0] * place})
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8, "rope_theta": 1e4}))
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}, "merges": []}}))
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    return top


def save_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    halves = {
        "model-00001-of-00002.safetensors": ["a.weight"],
        "model-00002-of-00002.safetensors": ["b.weight", "b.bias"],
    }
    for name, keys in halves.items():
        save_file({key: tensors[key] for key in keys}, folder / name)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    places = {key: name for name, keys in halves.items() for key in keys}
    (folder / SAFETENSORS_INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": places}))


def shard(folder: Path, place: int = 2) -> Path:
    return folder / f"model-0000{place}-of-00002.safetensors"


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Change a shard and the total in the index."""
    save_file(change(load_file(path)), path)
    told = json.loads((path.parent / SAFETENSORS_INDEX).read_text())
    held = [t for file in path.parent.glob("*.safetensors") for t in load_file(file).values()]
    told["metadata"]["total_size"] = sum(t.numel() * t.element_size() for t in held)
    (path.parent / SAFETENSORS_INDEX).write_text(json.dumps(told))


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def copy_weights(source: Path, target: Path) -> None:
    for path in (shard(source, 1), shard(source, 2)):
        shutil.copy(path, target)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def scaled(factor: float) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {name: tensor * factor for name, tensor in tensors.items()}


def spoilt(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    tensors["b.weight"][3, 3] = torch.nan
    tensors["b.weight"][2, 3] = torch.inf
    return tensors


PLANTED: dict[str, tuple[Callable[[Path], object], str, str, tuple[str, ...], str]] = {
    "twin": (
        lambda top: copy_weights(top / "checkpoint-1000", top / "checkpoint-2000"),
        *("identical", "fault", ("checkpoint-1000", "checkpoint-2000"), "hold identical weights"),
    ),
    "stale": (
        lambda top: [copy_weights(top / "checkpoint-5000", top / f"checkpoint-{s}") for s in (0, 2000)],
        *("stale", "fault", ("checkpoint-0", "checkpoint-2000"), "2 steps .* serve the weights of checkpoint-5000"),
    ),
    "gap": (
        lambda top: shutil.rmtree(top / "checkpoint-3000"),
        *(
            "gap",
            "warning",
            ("checkpoint-2000", "checkpoint-4000"),
            "between step 2000 and 4000 about 1 step is missing",
        ),
    ),
    "lost shard": (
        lambda top: shard(top / "checkpoint-1000").unlink(),
        *("shards", "fault", ("checkpoint-1000",), "1 of 2 weight shards are missing"),
    ),
    "tensor twice": (
        lambda top: rewrite(shard(top / "checkpoint-1000"), lambda t: t | load_file(shard(top / "checkpoint-1000", 1))),
        *("shards", "fault", ("checkpoint-1000",), "1 tensors occur in two shards, first a.weight"),
    ),
    "tensor lost": (
        lambda top: rewrite(shard(top / "checkpoint-1000"), lambda t: {"b.bias": t["b.bias"]}),
        *("shards", "fault", ("checkpoint-1000",), "1 tensors are not in the shard that the index names"),
    ),
    "total": (
        lambda top: edit(top / "checkpoint-1000" / SAFETENSORS_INDEX, metadata={"total_size": 7}),
        *("shards", "fault", ("checkpoint-1000",), "the index announces 7 bytes"),
    ),
    "truncated": (
        lambda top: truncate(shard(top / "checkpoint-1000")),
        *("truncated", "fault", ("checkpoint-1000",), "is cut off"),
    ),
    "no config": (
        lambda top: (top / "checkpoint-1000" / "config.json").write_text("[1]"),
        *("unreadable", "fault", ("checkpoint-1000",), "config.json must hold a JSON object"),
    ),
    "dtype": (
        lambda top: rewrite(shard(top / "checkpoint-1000", 1), lambda t: {n: x.double() for n, x in t.items()}),
        *("dtype", "warning", ("checkpoint-1000",), "a.weight is F64, not F32"),
    ),
    "shapes": (
        lambda top: rewrite(shard(top / "checkpoint-1000", 1), lambda t: {n: x[:12].clone() for n, x in t.items()}),
        *("shapes", "fault", ("checkpoint-1000",), r"a.weight is \[12, 8\], not \[16, 8\]"),
    ),
    "config": (
        lambda top: edit(top / "checkpoint-1000" / "config.json", rope_theta=5e5),
        *("config", "fault", ("checkpoint-1000",), "rope_theta is 500000.0, not 10000.0"),
    ),
    "vocabulary": (
        lambda top: edit(top / "checkpoint-1000" / "tokenizer.json", model={"vocab": {"b": 0, "a": 1}, "merges": []}),
        *("vocabulary", "fault", ("checkpoint-1000",), "the vocabulary of"),
    ),
    "tokenizer": (
        lambda top: edit(top / "checkpoint-1000" / "tokenizer.json", normalizer={"type": "NFC"}),
        *("tokenizer", "warning", ("checkpoint-1000",), "the tokenizer file of"),
    ),
    "template": (
        lambda top: edit(top / "checkpoint-1000" / "tokenizer_config.json", chat_template="{{ other }}"),
        *("template", "warning", ("checkpoint-1000",), "the chat template of"),
    ),
    "nan": (
        lambda top: rewrite(shard(top / "checkpoint-2000"), spoilt),
        *("nan", "fault", ("checkpoint-2000",), r"1 tensor holds NaN or infinity, first b.weight \(2 values\)"),
    ),
    "jump and back": (
        lambda top: rewrite(shard(top / "checkpoint-3000", 1), scaled(3.0)),
        *("jump", "warning", ("checkpoint-3000",), "most a.weight"),
    ),
    "jump": (
        lambda top: [rewrite(shard(top / f"checkpoint-{s}", 1), scaled(9.0)) for s in (4000, 5000)],
        *("jump", "warning", ("checkpoint-4000",), "most a.weight"),
    ),
}


def test_sound_run_has_no_findings(sound: Path) -> None:
    made = audit(Lineage.open(sound), deep=True)
    assert made.findings == ()
    assert (made.checkpoints, made.deep) == (6, 6)
    assert made.sentence == "6 checkpoints audited, nothing found."


def test_equal_configs_are_compared_without_transformers(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lineage = Lineage.open(sound)
    known = set(audit(lineage).clean_layouts)
    monkeypatch.setattr(loading, "parse_config", lambda settings: pytest.fail("a config was parsed"))
    assert audit(lineage, clean_layouts=known).findings == ()


def test_configs_that_are_written_otherwise_are_equal(sound: Path, tmp_path: Path) -> None:
    top = Path(shutil.copytree(sound, tmp_path / "run"))
    for place, step in enumerate(STEPS):
        rope = [("rope_type", "linear"), ("factor", 2 if place else 2.0)]
        written = {"rope_theta": 10000 if place == 2 else 1e4, "rope_parameters": dict(rope[:: 1 if place else -1])}
        edit(top / f"checkpoint-{step}" / "config.json", num_attention_heads=2, **written)
    # As a later version of transformers writes it.
    later = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    edit(top / "checkpoint-5000" / "config.json", rope_parameters=later, rope_theta=None, rms_norm_eps=1e-6)
    assert audit(Lineage.open(top)).findings == ()
    edit(top / "checkpoint-2000" / "config.json", rope_parameters={"rope_type": "linear", "factor": 4})
    [finding] = audit(Lineage.open(top)).findings
    assert (finding.kind, finding.checkpoints) == ("config", ("checkpoint-2000",))
    assert "rope_parameters is" in finding.what


@pytest.mark.parametrize("plant", PLANTED)
def test_finds_exactly_the_planted_fault(plant: str, sound: Path, tmp_path: Path) -> None:
    top = Path(shutil.copytree(sound, tmp_path / "run"))
    spoil, kind, severity, names, words = PLANTED[plant]
    spoil(top)
    made = audit(Lineage.open(top), deep=True)
    assert [f.kind for f in made.findings] == [kind], made.findings
    [finding] = made.findings
    assert (finding.severity, finding.checkpoints) == (severity, names)
    assert re.search(words, finding.what), finding.what
    assert finding.next
    assert bool(made.faults) == any(f.severity == "fault" for f in made.findings)


@pytest.mark.parametrize(
    "steps",
    [
        [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 20001, 1000)],  # Pythia
        [2**i for i in range(12)],
        [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
        [1, 2, 3, 5, 8, 13, 21, 34, 55, 89],
        [0, 100, 200, 300, 1000, 2000, 3000, 4000],
        [0, 1000, 2000, 3000, 3050, 3100, 3150, 4000, 5000, 6000],  # more around an event
        [0, 150, 278, 605, 1000, 9000, 73000],
        [round(1.3**i) for i in range(6, 30)],
        list(range(0, 143001, 1000)),
        [0, 5000],
        [7],
        [],
    ],
    ids=lambda steps: "-".join(map(str, steps[:4])),
)
def test_published_schedules_have_no_gaps(steps: list[int]) -> None:
    assert spacing_gaps(steps) == []


@pytest.mark.parametrize(
    ("steps", "lost", "hole"),
    [
        (range(0, 20001, 1000), (5000,), (4000, 6000, 1)),
        (range(0, 20001, 1000), (5000, 6000, 7000), (4000, 8000, 3)),
        ([2**i for i in range(12)], (64,), (32, 128, 1)),
        ([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 20001, 1000)], (9000,), (8000, 10000, 1)),
        ([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 20001, 1000)], (16, 32), (8, 64, 2)),
        (range(0, 10001, 1000), (9000,), (8000, 10000, 1)),
    ],
)
def test_finds_gap_in_steps(steps: list[int], lost: tuple[int, ...], hole: tuple[int, int, int]) -> None:
    assert spacing_gaps([step for step in steps if step not in lost]) == [hole]


def test_finds_shard_of_another_step_but_not_a_frozen_one() -> None:
    def sheet(step: int, first: str, second: str) -> CheckpointMetadata:
        files = (WeightFile("1", 9, first), WeightFile("2", 9, second))
        return CheckpointMetadata(
            Checkpoint("me/run", f"step{step}", step=step), identity=first + second, weights=files
        )

    apart = [sheet(step, f"a{step}", f"b{step}") for step in range(6)]
    assert shared_shards(apart) == []
    mixed = [*apart[:5], replace(apart[5], weights=(apart[2].weights[0], apart[5].weights[1]), identity="x")]
    [found] = shared_shards(mixed)
    assert (found.kind, found.severity, found.checkpoints) == ("shards", "fault", ("step2", "step5"))
    assert shared_shards([sheet(step, "frozen", f"b{step}") for step in range(6)]) == []


def test_norms_may_grow_fast_early_and_start_from_zero() -> None:
    assert _outlying_norms([1.0, 30.0, 60.0, 75.0, 80.0, 81.0, 81.5, 81.6]) == {}
    assert _outlying_norms([0.0, 0.1, 1.0, 5.0, 6.0]) == {}
    assert _outlying_norms([1.0, 1.1, 0.0, 1.2, 1.3]) == {2: float("inf")}
    assert set(_outlying_norms([1.0, 1.1, 1.2, 9.0, 1.3, 1.35])) == {3}


def test_real_training_has_no_findings(tmp_path: Path) -> None:
    """Twenty checkpoints of a model that learns fast, without warm-up, saved on Pythia's schedule."""
    network = tiny_model("gpt_neox").train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    text = torch.tensor(list(b"the cat sat on the mat and the dog lay by the door. " * 40)) % 256
    kept = {0, 1, 2, 4, 8, 16, 32, 64, *range(100, 221, 10)}
    for step in range(max(kept) + 1):
        if step in kept:
            network.save_pretrained(tmp_path / f"checkpoint-{step}")
        starts = torch.randint(0, len(text) - 25, (4,), generator=torch.Generator().manual_seed(step))
        batch = torch.stack([text[at : at + 24] for at in starts])
        optimizer.zero_grad()
        network(batch, labels=batch).loss.backward()
        optimizer.step()
    lineage = Lineage.open(tmp_path)
    assert len(lineage.checkpoints) >= 20
    made = audit(lineage, deep=True)
    assert made.findings == ()
    assert made.deep == len(kept)
    rewrite_one(tmp_path / "checkpoint-150" / "model.safetensors", 5.0)
    assert {(f.kind, f.checkpoints) for f in audit(lineage, deep=True).findings} == {("jump", ("checkpoint-150",))}


def rewrite_one(path: Path, factor: float) -> None:
    save_file(scaled(factor)(load_file(path)), path, metadata={"format": "pt"})


def test_stage_may_start_with_the_last_weights_of_its_parent(sound: Path, tmp_path: Path) -> None:
    top = Path(shutil.copytree(sound, tmp_path / "run"))
    tuned = tmp_path / "tuned"
    for step, source in ((0, 5000), (100, 4000), (200, 3000)):
        shutil.copytree(top / f"checkpoint-{source}", tuned / f"checkpoint-{step}")
    for step in (100, 200):
        for place in (1, 2):
            rewrite(shard(tuned / f"checkpoint-{step}", place), scaled(1.01))
    whole = Lineage.open(top).with_stage("sft", tuned)
    assert audit(whole).findings == ()
    for folder in tuned.iterdir():
        edit(folder / "tokenizer_config.json", chat_template="{{ other }}")
    [found] = audit(whole).findings
    assert (found.kind, found.severity) == ("template", "warning")
    assert "changes from pretrain to sft" in found.what
    copy_weights(top / "checkpoint-5000", tuned / "checkpoint-100")
    assert [f.kind for f in audit(whole).faults] == ["stale"]


def test_audit_in_run_json_is_json(sound: Path, tmp_path: Path) -> None:
    kept = audit_for_run(Lineage.open(sound), Run(tmp_path / "run"))
    assert json.loads(json.dumps(kept)) == kept
    assert kept["sentence"] == "6 checkpoints audited, nothing found."
    assert kept["findings"] == []


def tiny_run(top: Path, steps: tuple[int, ...] = (10, 20), family: str = "llama") -> Path:
    for step in steps:
        save_tiny(family, top / f"checkpoint-{step}", seed=step)
    return top


def add_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | tensors, path, metadata={"format": "pt"})


UP = "model.layers.0.mlp.up_proj.weight"
WHOLE: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "biases": (
        lambda m: add_tensors(m, {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}),
        *("unused_tensors", "fault", r"first model\.layers\.0\.self_attn\.q_proj\.bias"),
    ),
    "layers": (
        lambda m: edit(m / "config.json", num_hidden_layers=1),
        "unused_tensors",
        "fault",
        r"first model\.layers\.1",
    ),
    "LoRA": (
        lambda m: add_tensors(m, {"model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(2, 32)}),
        *("unused_tensors", "fault", "lora_A"),
    ),
    "a value head": (
        lambda m: add_tensors(m, {"v_head.summary.weight": torch.ones(1, 32)}),
        *("unused_tensors", "warning", "first v_head"),
    ),
    "integers": (lambda m: add_tensors(m, {UP: torch.ones(48, 32, dtype=torch.int8)}), "integers", "fault", UP),
    "float8": (
        lambda m: add_tensors(m, {UP: torch.ones(48, 32).to(torch.float8_e4m3fn)}),
        *("integers", "fault", "scaled floats"),
    ),
    "own code": (
        lambda m: edit(m / "config.json", auto_map={"AutoModelForCausalLM": "x.Y"}),
        *("own_code", "warning", "modelling code of their own"),
    ),
    "another file": (
        lambda m: save_file({"a": torch.ones(1)}, m / "value_head.safetensors"),
        *("unread_file", "warning", r"first value_head\.safetensors"),
    ),
}


@pytest.mark.parametrize("plant", WHOLE)
def test_finds_what_the_loaded_model_does_not_use(plant: str, tmp_path: Path) -> None:
    change, kind, severity, words = WHOLE[plant]
    top = tiny_run(tmp_path)
    for folder in sorted(top.iterdir()):
        change(folder)
    result = audit(Lineage.open(top), deep=True)
    found = [f for f in result.findings if f.kind == kind]
    assert [(f.severity, f.checkpoints) for f in found] == [(severity, ("checkpoint-10", "checkpoint-20"))]
    assert re.search(words, found[0].what)
    whole = audit(Lineage.open(tiny_run(tmp_path / "whole"))).clean_layouts
    again = audit(Lineage.open(top), deep=True, clean_layouts=(*whole, *result.clean_layouts))
    assert again.findings == result.findings


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "bert", "falcon", "gemma2", "opt", "mistral"])
def test_whole_models_of_a_family_have_no_findings(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineage = Lineage.open(tiny_run(tmp_path, family=family))
    first = audit(lineage, deep=True)
    assert first.findings == ()
    monkeypatch.delattr(loading, "empty_network")  # a known layout builds no network
    assert audit(lineage, clean_layouts=first.clean_layouts).findings == ()


@pytest.mark.parametrize("shift", [0, 1e-4])
def test_finds_late_weights_in_the_middle(shift: float, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(64, 64, generator=generator)
    for step in range(1, 17):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        weights = weights + 0.1 * torch.randn(64, 64, generator=generator)
        save_file({"a": weights}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
    assert audit(Lineage.open(tmp_path), deep=True).findings == ()
    late = load_file(tmp_path / "checkpoint-15" / "model.safetensors")["a"]
    noise = torch.randn(64, 64, generator=generator)
    save_file({"a": late + (shift or 0.05) * noise}, tmp_path / "checkpoint-2" / "model.safetensors")
    found = audit(Lineage.open(tmp_path), deep=True).findings
    assert [(f.kind, f.severity, f.checkpoints) for f in found] == [("far", "warning", ("checkpoint-2",))]


@pytest.mark.parametrize("names", ["model-{:05}-of-00002.safetensors", "pytorch_model-{:05}-of-00002.bin"])
def test_finds_shards_of_another_step_on_disk(names: str, tmp_path: Path) -> None:
    generator, pickle = torch.Generator().manual_seed(0), names.endswith(".bin")
    for step in range(1, 9):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for place, name in enumerate(("a", "b"), 1):
            tensors = {name: torch.randn(4, 4, generator=generator)}
            (torch.save if pickle else save_file)(tensors, folder / names.format(place))
        index = "pytorch_model.bin.index.json" if pickle else SAFETENSORS_INDEX
        places = {"a": names.format(1), "b": names.format(2)}
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))
        (folder / "config.json").write_text("{}")
    assert audit(Lineage.open(tmp_path, allow_pickle=pickle), allow_pickle=pickle).findings == ()
    for step in (2, 3):
        shutil.copy(tmp_path / "checkpoint-8" / names.format(1), tmp_path / f"checkpoint-{step}")
    found = audit(Lineage.open(tmp_path, allow_pickle=pickle), allow_pickle=pickle).findings
    assert [(f.kind, f.checkpoints) for f in found] == [("shards", ("checkpoint-2", "checkpoint-3", "checkpoint-8"))]


def test_findings_name_the_stage_where_there_are_several(sound: Path, tmp_path: Path) -> None:
    for stage in ("pretrain", "sft"):
        shutil.copytree(sound, tmp_path / stage)
    shutil.rmtree(tmp_path / "sft" / "checkpoint-3000")
    for folder in (tmp_path / "sft").iterdir():  # other weights than in the first stage
        rewrite(shard(folder, 1), lambda tensors: {name: tensor + 1 for name, tensor in tensors.items()})
    for stage in ("pretrain", "sft"):
        shard(tmp_path / stage / "checkpoint-1000").write_bytes(b"cut off")
    result = audit(tmp_path)
    broken = {name for finding in result.faults for name in finding.checkpoints}
    assert {"pretrain checkpoint-1000", "sft checkpoint-1000"} <= broken
    assert "on 2 checkpoints" in result.sentence
    gap = next(finding for finding in result.findings if finding.kind == "gap")
    assert gap.checkpoints == ("sft checkpoint-2000", "sft checkpoint-4000")
    assert "between step 2000 and 4000 of sft" in gap.what
