"""What real training leaves on disk: project folders, LoRA folders and best models on top are traced by one command."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ontogeny.data.concept import Concept
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.models.loading import load_network
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import planted, save_run
from tests.helpers.trace_runs import QUICK


def scores(lineage: Lineage, concept: Concept, out: Path, control: str = "control is null"):
    run = trace(lineage, [concept], out, QUICK)
    return run.records(f"metric = 'auroc' and method = 'logistic' and site = 'resid.1' and {control}")


def test_project_folder_of_three_stages(home: Path, tmp_path: Path, small: Concept) -> None:
    for stage, weights in (("dpo", {5: 3.0}), ("pretrain", {0: 0.0, 2: 4.0}), ("sft", {0: 4.0, 3: 8.0})):
        save_run(tmp_path / "run" / stage, weights)
    found = scores(Lineage.open(tmp_path / "run"), small, tmp_path / "out")
    assert sorted(zip(found.stage, found.step, strict=True)) == [
        ("dpo", 5),
        ("pretrain", 0),
        ("pretrain", 2),
        ("sft", 0),
        ("sft", 3),
    ]


def save_lora(base: Path, folder: Path, twin: Path, seed: int) -> None:
    network, tensors = load_network(base, torch.float32, False), {}
    generator = torch.Generator().manual_seed(seed)
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear) and "embed" not in name and "lm_head" not in name:
            a = torch.randn(2, module.in_features, generator=generator)
            b = torch.randn(module.out_features, 2, generator=generator) / 50
            tensors |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
            module.weight.data += 2 * b @ a
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "/elsewhere/checkpoint-3"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    shutil.copytree(base, twin)
    network.save_pretrained(twin)


def test_lora_lineage_equals_its_merged_twin(home: Path, tmp_path: Path, small: Concept) -> None:
    base = Path(shutil.copytree(home / "few" / "checkpoint-3", tmp_path / "lora" / "checkpoint-3"))
    for file in (home / "few").glob("*.json"):
        for top in ("lora", "twin"):
            (tmp_path / top).mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / top)
    for step in (10, 20):
        save_lora(
            base, tmp_path / "lora" / "sft" / f"checkpoint-{step}", tmp_path / "twin" / f"checkpoint-{step}", step
        )
    merged = scores(Lineage.open(tmp_path / "twin"), small, tmp_path / "out_twin")
    lora = scores(Lineage.open(tmp_path / "lora" / "sft"), small, tmp_path / "out_lora")
    assert sorted(lora.step) == sorted(merged.step) == [10, 20]
    ours, theirs = lora.set_index("step").value, merged.set_index("step").value
    assert (ours - theirs).abs().max() < 1e-5
    directions = [
        trace(Lineage.open(tmp_path / top), [small], tmp_path / out, QUICK).direction("small", site="resid.1").vector
        for top, out in (("twin", "out_twin"), ("lora/sft", "out_lora"))
    ]
    assert torch.allclose(directions[0], directions[1], rtol=0, atol=1e-5 * float(directions[0].abs().max()))


def test_step_0_is_a_floor_only_if_it_looks_untrained(tmp_path: Path, small: Concept) -> None:
    save_run(tmp_path / "run", {0: 8.0, 2: 8.0, 3: 8.0})
    trained = scores(Lineage.open(tmp_path / "run"), small, tmp_path / "trained", "control = 'untrained'")
    planted(8.0, fresh=True).save_pretrained(tmp_path / "run" / "checkpoint-0")
    fresh = scores(Lineage.open(tmp_path / "run"), small, tmp_path / "fresh", "control = 'untrained'")
    assert trained.value.max() < 0.75 < fresh.value.max()


def test_best_model_on_top_is_no_later_checkpoint(tmp_path: Path, small: Concept) -> None:
    save_run(tmp_path / "run", {1: 0.0, 2: 8.0, 3: 4.0})
    for file in (tmp_path / "run" / "checkpoint-2").iterdir():
        shutil.copy(file, tmp_path / "run")
    lineage = Lineage.open(tmp_path / "run")
    assert [c.step for c in lineage.checkpoints] == [1, 2, 3]
    assert "checkpoint-2" in lineage.notes[0]
    run = trace(lineage, [small], tmp_path / "out", QUICK)
    assert run.about["audit"]["findings"] == []
    assert "checkpoint-2" in run.about["lineage"]["notes"][0]


@pytest.mark.parametrize("first", [2**24, 11_000_000_001])
def test_large_steps_are_exact_in_events(first: int, tmp_path: Path, small: Concept) -> None:
    steps = [first + i for i in range(6)]
    save_run(tmp_path / "run", dict(zip(steps, (0.0, 0.0, 0.0, 8.0, 8.0, 8.0), strict=True)))
    run = trace(Lineage.open(tmp_path / "run"), [small], tmp_path / "out", QUICK)
    assert sorted(set(run.records("metric = 'auroc' and control is null and step is not null").step)) == steps
    events = run.records("metric = 'emergence_step' and not isnan(value)")
    assert len(events)
    assert set(events.low) | set(events.high.dropna()) <= set(steps)


def test_monitor_of_checkpoints_without_a_step(home: Path, tmp_path: Path, small: Concept, say: Say) -> None:
    for stage, step in (("base", 2), ("sft", 3)):
        shutil.copytree(home / "few" / f"checkpoint-{step}", tmp_path / "run" / stage)
    for file in (home / "few").glob("*.json"):
        shutil.copy(file, tmp_path / "run")
    lineage = Lineage.open(tmp_path / "run")
    assert [(c.stage, c.step) for c in lineage.checkpoints] == [("base", None), ("sft", None)]
    trace(lineage, [small], tmp_path / "out", QUICK)
    code, out, error = say("monitor", tmp_path / "out", "--fpr", "0.2")
    assert code == 0, error
    assert "at sft end" in out
