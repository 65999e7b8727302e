"""The plain training loop: one step, and what it keeps in memory (AdamW, arXiv:1711.05101; warm-up, then a cosine).

Everything that determines the weights of a step stands in a `Recipe`: training, resuming and replaying all take the same steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.training.batches import count_batch_tokens
from ontogeny.training.objectives import Objective

BatchFunction = Callable[[int], Any]
"""The batch of a step (1, 2, …). A function of the step, not a stream: a resumed run has nothing to wind forward."""


@dataclass(frozen=True)
class TrainingConfig:
    steps: int
    learning_rate: float = 3e-3
    warmup: int = 50
    """Steps in which the learning rate rises from 0."""
    floor: float = 0.05
    """Share of the learning rate that is left at the last step; 1 keeps it constant."""
    weight_decay: float = 0.1
    """Of matrices; gains and biases do not decay. Decoupled with adamw, L2 with sgd."""
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    """Largest norm of the gradient."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    """Of sgd."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BadInput(f"a run of {self.steps} steps trains nothing. Take at least one.")
        if self.optimiser not in ("adamw", "sgd"):
            raise BadInput(f"no optimiser called {self.optimiser!r}; known: adamw, sgd.")


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine down to `floor`; the first step is 1."""
    down = (step - config.warmup) / max(config.steps - config.warmup, 1)
    cosine = config.floor + (1 - config.floor) * (1 + math.cos(math.pi * max(down, 0.0))) / 2
    return config.learning_rate * min(1.0, step / max(config.warmup, 1)) * cosine


@dataclass(frozen=True)
class TrainingRecipe:
    """What determines the weights of every step."""

    make: Callable[[], nn.Module]
    """The start of the run, the same each time; what it freezes asks for no gradient."""
    batches: BatchFunction
    objective: Objective
    config: TrainingConfig
    seed: int = 0


@dataclass
class TrainingSession:
    """A run in memory."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    reference: nn.Module | None
    step: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class StepResult:
    """What one step did."""

    loss: float
    norm: float
    """Of the gradient, before clipping."""
    clip: float
    """Factor that the gradient was multiplied with."""
    rate: float


def start_session(recipe: TrainingRecipe, reference: Callable[[], nn.Module] | None = None) -> TrainingSession:
    """Step 0 of a run; random numbers are those of its seed from here on."""
    torch.manual_seed(recipe.seed)
    network = recipe.make().train()
    known = None
    if getattr(recipe.objective, "needs_reference", False):
        torch.manual_seed(recipe.seed)
        known = (reference or recipe.make)().eval().requires_grad_(False)
    # From here on they do not depend on how many the start took: a run can be replayed from weights on disk.
    torch.manual_seed(recipe.seed + 0x5EED)
    return TrainingSession(network, make_optimizer(network, recipe.config), known)


def train_step(session: TrainingSession, recipe: TrainingRecipe, batch: Any) -> StepResult:
    """One step.

    Raises:
        BadInput: the loss is no longer finite.
    """
    session.step += 1
    rate = learning_rate_at(session.step, recipe.config)
    for group in session.optimiser.param_groups:
        group["lr"] = rate
    loss = recipe.objective(session.network, batch, session.reference)
    value = loss.item()
    if not math.isfinite(value):
        raise BadInput(
            f"the loss is {value} at step {session.step}: the training diverged. "
            "Take a smaller learning rate or a longer warm-up."
        )
    session.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trainable_parameters(session.network), recipe.config.clip)
    session.optimiser.step()
    session.tokens += count_batch_tokens(batch)
    # The factor as clip_grad_norm_ computes it, in its precision.
    return StepResult(value, float(norm), float((recipe.config.clip / (norm + 1e-6)).clamp(max=1.0)), rate)


def trainable_parameters(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def make_optimizer(network: nn.Module, config: TrainingConfig, *, matrix: int = 2) -> torch.optim.Optimizer:
    """What has at least `matrix` dimensions decays; gains and biases do not."""
    parameters = trainable_parameters(network)
    groups = [
        {"params": [p for p in parameters if p.ndim >= matrix], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < matrix], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise BadInput("every parameter is frozen: there is nothing to train. Freeze fewer groups.")
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def optimizer_moments(session: TrainingSession) -> dict[str, Tensor]:
    """The optimiser's tensors as `parameter/moment`; none before the first step."""
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
