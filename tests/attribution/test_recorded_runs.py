"""The path of recorded runs is the path of the same training in memory; a record that lacks a field says which estimates remain."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ontogeny.attribution.path import PathStage, record_path
from ontogeny.attribution.recorded_runs import RecordedStage, recorded_path
from ontogeny.attribution.recorded_tiers import reverse_scores
from ontogeny.errors import BadInput
from ontogeny.training.loop import TrainingConfig
from ontogeny.training.recorder import RecordingPlan
from ontogeny.training.train import train_module

X = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def objective(network: nn.Module, batch: Any, reference: nn.Module | None = None, /) -> torch.Tensor:
    return nn.functional.cross_entropy(network(batch[0]), batch[1])


def batches(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.arange(step, step + 8) % 16
    return X[rows], Y[rows]


def recorded(out: Path, config: TrainingConfig) -> RecordedStage:
    train_module(batches, objective, config, out, make=make, save_at=(0, config.steps), record=RecordingPlan())
    return RecordedStage(out.name, out, batches, objective, make)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_recorded_path_gives_the_scores_of_the_path_in_memory(optimiser: str, tmp_path: Path) -> None:
    """Clipping is strong, and the consumed gradient is recovered all the same."""
    config = TrainingConfig(6, 0.02, warmup=2, clip=0.2, optimiser=optimiser)  # type: ignore[arg-type]
    ours = recorded_path([recorded(tmp_path / "run", config)])
    stage = PathStage("run", lambda network, batch: objective(network, batch), batches, config)
    memory = record_path(make, [stage], seed=0)
    assert torch.allclose(ours.final.parameters, memory.final.parameters, atol=1e-6)
    for index in range(len(ours.steps)):
        following = ours.steps[index + 1].state if index + 1 < len(ours.steps) else ours.final
        assert torch.allclose(ours.after(index).parameters, following.parameters, atol=1e-6)

    def behaviour(network: nn.Module) -> torch.Tensor:
        return objective(network, (X, Y))

    assert reverse_scores(ours, behaviour).scores == pytest.approx(reverse_scores(memory, behaviour).scores, rel=1e-3)


def test_unusable_recordings_are_refused(tmp_path: Path) -> None:
    config = TrainingConfig(3, 0.02, warmup=1)
    stage = recorded(tmp_path / "run", config)
    with pytest.raises(BadInput, match="must start where"):
        recorded_path([stage, recorded(tmp_path / "again", config)])
    with pytest.raises(BadInput, match="at least one recorded run"):
        recorded_path([])
    rows = tmp_path / "run" / "recording" / "steps.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    rows.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "clip"}) + "\n" for line in lines))
    with pytest.raises(BadInput, match=r"lacks clip of step 1.*endpoint, subtraction, addition and linearised"):
        recorded_path([stage])
