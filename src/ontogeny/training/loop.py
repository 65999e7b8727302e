"""Training steps and their state in memory (AdamW, arXiv:1711.05101; linear warm-up, then a cosine).

A `TrainingRecipe` has everything that determines the weights of a step: training, resuming and replaying take the same steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ontogeny.errors import BadInput, unknown_name
from ontogeny.training.batches import count_batch_tokens
from ontogeny.training.objectives.objective import Objective

BatchFunction = Callable[[int], Any]
"""The batch of a step (1, 2, …). A function of the step, so that a resumed run need not replay a stream."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the optimiser and the learning rate; stored in `training.json`."""

    steps: int
    learning_rate: float = 3e-3
    warmup: int = 50
    """Number of steps in which the learning rate rises from 0."""
    floor: float = 0.05
    """Share of the learning rate at the last step; 1 keeps it constant."""
    weight_decay: float = 0.1
    """Weight decay of matrices; gains and biases do not decay. Decoupled with adamw, L2 with sgd."""
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    """Maximum norm of the gradient."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    """Momentum of sgd."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"`steps` must be at least one, got {self.steps}.")
        if self.optimiser not in ("adamw", "sgd"):
            raise unknown_name("optimiser", self.optimiser, ("adamw", "sgd"))


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Learning rate of a step (from 1): linear warm-up, then half a cosine down to `floor`."""
    down = (step - config.warmup) / max(config.steps - config.warmup, 1)
    cosine = config.floor + (1 - config.floor) * (1 + math.cos(math.pi * max(down, 0.0))) / 2
    return config.learning_rate * min(1.0, step / max(config.warmup, 1)) * cosine


@dataclass(frozen=True)
class TrainingRecipe:
    """Everything that determines the weights of every step."""

    make: Callable[[], nn.Module]
    """Builds the initial network, equal each time; frozen parameters require no gradient."""
    batches: BatchFunction
    objective: Objective
    config: TrainingConfig
    seed: int = 0


@dataclass
class TrainingSession:
    """State of a run in memory."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    reference: nn.Module | None
    step: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class StepResult:
    """Figures of one step."""

    loss: float
    norm: float
    """Norm of the gradient before clipping."""
    clip: float
    """Factor that clipping multiplied the gradient by."""
    rate: float


def start_session(recipe: TrainingRecipe, reference: Callable[[], nn.Module] | None = None) -> TrainingSession:
    """Build the networks of step 0, and seed the process's random numbers for the run."""
    torch.manual_seed(recipe.seed)
    network = recipe.make().train()
    reference_network = None
    if getattr(recipe.objective, "needs_reference", False):
        torch.manual_seed(recipe.seed)
        reference_network = (reference or recipe.make)().eval().requires_grad_(False)
    # Seeded again, so that later random numbers do not depend on initialisation: a run can be replayed from weights on disk.
    torch.manual_seed(recipe.seed + 0x5EED)
    return TrainingSession(network, make_optimizer(network, recipe.config), reference_network)


def train_step(session: TrainingSession, recipe: TrainingRecipe, batch: Any) -> StepResult:
    """Take one step.

    Raises:
        BadInput: the loss is not finite.
    """
    session.step += 1
    rate = learning_rate_at(session.step, recipe.config)
    for group in session.optimiser.param_groups:
        group["lr"] = rate
    loss = recipe.objective(session.network, batch, session.reference)
    value = loss.item()
    if not math.isfinite(value):
        raise BadInput(
            f"the training diverged: the loss is {value} at step {session.step}: use a smaller learning rate or a longer warm-up."
        )
    session.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trainable_parameters(session.network), recipe.config.clip)
    session.optimiser.step()
    session.tokens += count_batch_tokens(batch)
    # The clip factor as clip_grad_norm_ computes it, in the same precision.
    return StepResult(value, float(norm), float((recipe.config.clip / (norm + 1e-6)).clamp(max=1.0)), rate)


def trainable_parameters(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def make_optimizer(network: nn.Module, config: TrainingConfig, *, matrix: int = 2) -> torch.optim.Optimizer:
    """The optimiser; only parameters with at least `matrix` dimensions decay."""
    parameters = trainable_parameters(network)
    groups = [
        {"params": [p for p in parameters if p.ndim >= matrix], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < matrix], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise BadInput("every parameter is frozen, so there is nothing to train: shorten `freeze`.")
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def optimizer_moments(session: TrainingSession) -> dict[str, Tensor]:
    """The optimiser's tensors as `parameter/moment`; empty before the first step."""
    return {
        f"{name}/{key}": value
        for name, parameter in session.network.named_parameters()
        for key, value in session.optimiser.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer_moments(session: TrainingSession, saved: dict[str, Tensor]) -> None:
    parameters = dict(session.network.named_parameters())
    for name, value in saved.items():
        owner, key = name.rsplit("/", 1)
        session.optimiser.state[parameters[owner]][key] = value
