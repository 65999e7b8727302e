"""The path of a training run in stages: the state before every step, with all that decides the step.

Buffers are empty at the start of each stage, as in separate runs. Memory is steps × parameters × 3, so a path is for small networks; larger
runs use the tiers that need checkpoints only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ontogeny.attribution.loss_derivatives import FlatNetwork, Loss
from ontogeny.attribution.optimizer_steps import OptimizerState, StepSettings, Vector, initial_state, optimizer_step
from ontogeny.errors import BadInput
from ontogeny.training.loop import TrainingConfig, learning_rate_at


@dataclass(frozen=True)
class PathStage:
    """A stage of training."""

    name: str
    loss: Loss
    batches: Callable[[int], Any]
    """The batch of a step (1, 2, …)."""
    config: TrainingConfig


@dataclass(frozen=True)
class PathStep:
    """A step of the path."""

    stage: int
    state: OptimizerState
    """Before the step."""
    gradient: Vector
    """Before clipping."""
    settings: StepSettings
    batch: Any


@dataclass(frozen=True)
class TrainingPath:
    """All steps of all stages, and the states between them."""

    network: FlatNetwork
    stages: Sequence[PathStage]
    steps: Sequence[PathStep]
    final: OptimizerState
    """After the last step."""

    def after(self, index: int) -> OptimizerState:
        """The state after a step, before a new stage empties the buffers."""
        step = self.steps[index]
        return optimizer_step(step.state, step.gradient, step.settings)

    @property
    def ends(self) -> list[Vector]:
        """Parameters before the first stage and after each stage."""
        starts = [
            next(step.state.parameters for step in self.steps if step.stage == i) for i in range(len(self.stages))
        ]
        return [*starts, self.final.parameters]


def record_path(
    make: Callable[[], nn.Module],
    stages: Sequence[PathStage],
    *,
    seed: int = 0,
    skip: int | None = None,
    scale: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> TrainingPath:
    """Train through the stages and keep every state.

    Args:
        make: Builds the network from the random numbers of `seed`.
        skip: A stage whose updates are not made: its steps leave parameters and buffers as they were.
        scale: Share of the skipped stage's updates that is made all the same.
        dtype: float32, or float64 for exact derivatives.

    Raises:
        BadInput: no stages, or a network that cannot be differentiated twice.
    """
    if not stages:
        raise BadInput("`stages` must hold at least one stage, got none.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flat = FlatNetwork(make().to(dtype).train())
    state = initial_state(flat.vector())
    steps: list[PathStep] = []
    for index, stage in enumerate(stages):
        state, decay = state.without_buffers(), flat.decay(stage.config.weight_decay)
        for number in range(1, stage.config.steps + 1):
            batch = stage.batches(number)
            gradient = flat.gradient(state.parameters, stage.loss, batch)
            step = PathStep(index, state, gradient, _settings(stage.config, number, decay, gradient), batch)
            after = optimizer_step(state, gradient, step.settings)
            if index == skip:
                change = after.minus(state)
                after = OptimizerState(
                    state.parameters + scale * change.parameters,
                    state.first + scale * change.first,
                    state.second + scale * change.second,
                )
                if scale == 0.0:
                    continue
            steps.append(step)
            state = after
        if not bool(state.parameters.isfinite().all()):
            raise BadInput(f"the training diverged in the stage {stage.name}: use a smaller learning rate.")
    return TrainingPath(flat, stages, steps, state)


def _settings(config: TrainingConfig, number: int, decay: Vector, gradient: Vector) -> StepSettings:
    norm = float(gradient.norm())
    return StepSettings(
        config.optimiser,
        number,
        learning_rate_at(number, config),
        decay,
        momentum=config.momentum,
        betas=config.betas,
        clip=min(1.0, config.clip / (norm + 1e-6)),
    )
