"""The path of runs that were recorded while they trained (`record=RecordingPlan()`), one run per stage, by replaying them bit for bit.

The gradient that Adam consumed is recovered from its moments before and after a step, so that it is right whatever clipping did.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ontogeny.attribution.loss_derivatives import FlatNetwork
from ontogeny.attribution.optimizer_steps import OptimizerState, StepSettings, consumed_gradient
from ontogeny.attribution.path import PathStage, PathStep, TrainingPath
from ontogeny.errors import BadInput
from ontogeny.training.checkpoints import read_training_settings
from ontogeny.training.loop import BatchFunction, TrainingConfig, TrainingSession
from ontogeny.training.objectives.objective import Objective
from ontogeny.training.recorder import StepRecord, read_recording
from ontogeny.training.replay import replay


@dataclass(frozen=True)
class RecordedStage:
    """A recorded run."""

    name: str
    folder: Path
    """Folder of the run, with `recording/` inside."""
    batches: BatchFunction
    objective: Objective
    make: Callable[[], nn.Module] | None = None
    """Builds the network if it is not a language model."""


def recorded_path(stages: Sequence[RecordedStage]) -> TrainingPath:
    """The path through recorded runs, for the tiers that need every step.

    Raises:
        BadInput: no stages, a record that lacks a field, a run with dropout, or one that does not start where the run before ended.
    """
    if not stages:
        raise BadInput("`stages` must hold at least one recorded run, got none.")
    steps: list[PathStep] = []
    path_stages: list[PathStage] = []
    flat: FlatNetwork | None = None
    final: OptimizerState | None = None
    for index, stage in enumerate(stages):
        settings = read_training_settings(stage.folder)["training"]
        config = TrainingConfig(**{**settings, "betas": tuple(settings["betas"])})
        rows = read_recording(stage.folder)
        states, references, network = _states(stage, len(rows))
        flat = FlatNetwork(network)
        if final is not None and not torch.equal(states[0].parameters, final.parameters):
            raise BadInput(
                f"the run {stage.folder} must start where {stages[index - 1].folder} ended, and its first weights differ: give the runs in "
                "the order of training."
            )

        def loss(network: nn.Module, batch: Any, stage: RecordedStage = stage, reference: Any = references) -> Tensor:
            return stage.objective(network, batch, reference)

        path_stages.append(PathStage(stage.name, loss, stage.batches, config))
        decay = flat.decay(config.weight_decay)
        for place, row in enumerate(rows):
            before, after = states[place], states[place + 1]
            batch = stage.batches(row.step)
            clip = row.clip
            if row.optimiser == "adamw":
                assert row.betas is not None
                # Recovered in float64: the difference of two moments of float32 loses digits.
                gradient = consumed_gradient(before.first.double(), after.first.double(), row.betas[0]).to(before.first)
                gradient = gradient / clip
            else:
                gradient = flat.gradient(before.parameters, loss, batch)
            steps.append(PathStep(index, before, gradient, _settings(row, decay), batch))
        final = replace(states[-1])
    assert flat is not None
    assert final is not None
    return TrainingPath(flat, path_stages, steps, final)


def _states(stage: RecordedStage, steps: int) -> tuple[list[OptimizerState], nn.Module | None, nn.Module]:
    """Parameters and moments before every step and after the last one, the reference model, and the network."""
    states: list[OptimizerState] = []
    held: list[TrainingSession] = []

    def keep(session: TrainingSession, batch: Any) -> None:
        held[:] = [session]
        states.append(_state(session))

    replay(stage.folder, 0, steps, batches=stage.batches, objective=stage.objective, make=stage.make, watch=keep)
    states.append(_state(held[0]))
    reference = held[0].reference
    return states, reference, held[0].network


def _state(session: TrainingSession) -> OptimizerState:
    parameters = [p for p in session.network.parameters() if p.requires_grad]

    def buffer(*names: str) -> Tensor:
        parts = []
        for p in parameters:
            state = session.optimiser.state.get(p, {})
            value = next((state[name] for name in names if state.get(name) is not None), torch.zeros_like(p))
            parts.append(value.detach().flatten())
        return torch.cat(parts)

    theta = torch.cat([p.detach().flatten() for p in parameters])
    return OptimizerState(theta, buffer("exp_avg", "momentum_buffer").clone(), buffer("exp_avg_sq").clone())


def _settings(row: StepRecord, decay: Tensor) -> StepSettings:
    return StepSettings(
        "sgd" if row.optimiser == "sgd" else "adamw",
        row.step,
        row.rate,
        decay,
        momentum=row.momentum or 0.0,
        betas=row.betas or (0.9, 0.999),
        eps=row.eps or 1e-8,
        clip=row.clip,
    )
