"""Self-cloning: a planner and its prefix map learn to leave what the frozen model says unchanged (arXiv:2406.11978).

The loss is the divergence of the prefixed model from the model alone over the model's own utterances: cross-entropy on these utterances
less its smallest possible value, without the noise of one sample a token.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.dialogues.action_tokens import ActionPlanner, PrefixMap, prefixed_logits
from ontogeny.errors import BadInput
from ontogeny.models.model import Model


@dataclass(frozen=True, eq=False)
class Utterances:
    """Utterances of one turn, of dialogues of one length."""

    states: Float[Tensor, "dialogue d"]
    """Before the utterance, read without a prefix."""
    ids: Int[Tensor, "dialogue token"]
    """Dialogues, each with its utterance at the end."""
    length: int
    """Tokens of the utterance."""


@dataclass(frozen=True)
class CloningConfig:
    """Settings of self-cloning (AdamW, linear decay)."""

    steps: int = 200
    batch: int = 64
    learning_rate: float = 3e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not 0 < self.learning_rate < math.inf:
            raise BadInput(
                "`steps` and `batch` must be at least 1 and `learning_rate` above 0, got "
                f"{self.steps}, {self.batch} and {self.learning_rate}."
            )


def clone_self(
    model: Model,
    planner: ActionPlanner,
    prefix_map: PrefixMap,
    turns: Sequence[Utterances],
    config: CloningConfig,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train planner and map in place; the model is not changed.

    Args:
        turns: Utterances that the model alone has made; a batch is drawn from one turn.
        on_step: Called with each step and its divergence, nats per token.

    Raises:
        BadInput: no utterances, or a loss that is not finite.
    """
    if not turns:
        raise BadInput("`turns` must have the utterances of at least one turn, got none: let the model speak first.")
    generator = torch.Generator().manual_seed(config.seed)
    parameters = [*planner.parameters(), *prefix_map.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
    shares = torch.tensor([float(len(turn.ids)) for turn in turns])
    for step in range(1, config.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (1 - (step - 1) / config.steps)
        turn = turns[int(torch.multinomial(shares, 1, generator=generator))]
        rows = torch.randint(len(turn.ids), (min(config.batch, len(turn.ids)),), generator=generator)
        with torch.no_grad():
            alone = prefixed_logits(model, turn.ids[rows], None, last=turn.length)
        prefix = prefix_map(planner(turn.states[rows]))
        loss = divergence(alone, prefixed_logits(model, turn.ids[rows], prefix, last=turn.length)).mean()
        value = loss.item()
        if not math.isfinite(value):
            raise BadInput(f"self-cloning diverged at step {step}: use a smaller `learning_rate`.")
        optimiser.zero_grad(set_to_none=True)
        # Gradients of planner and map alone: those of the model's weights are neither needed nor kept.
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimiser.step()
        on_step(step, value)


def divergence(
    alone: Float[Tensor, "dialogue token word"], prefixed: Float[Tensor, "dialogue token word"]
) -> Float[Tensor, "dialogue token"]:
    """Kullback-Leibler divergence of the prefixed model from the model alone, nats."""
    own = alone.log_softmax(-1)
    return (own.exp() * (own - prefixed.log_softmax(-1))).sum(-1)


def utterance_loss(
    logits: Float[Tensor, "dialogue token word"], said: Int[Tensor, "dialogue token"]
) -> Float[Tensor, " dialogue"]:
    """Cross-entropy of what is said, nats per token."""
    return -logits.log_softmax(-1).gather(-1, said.to(logits.device)[..., None])[..., 0].mean(1)
