"""GRPO loss (arXiv:2402.03300)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.training.batches import PromptBatch, TokenBatch
from ontogeny.training.objectives.log_probs import (
    require_reference,
    token_log_probs,
)
from ontogeny.training.rollouts import RewardFunction, sample_rollouts


@dataclass(frozen=True)
class GroupRelative:
    """GRPO: sample several answers to each prompt, and raise the likelihood of those better than their group.

    -mean over answers of the mean over their tokens of ratio·A - β·KL, with A = (reward - mean) / std within the group and
    KL = exp(r) - r - 1, r the log-ratio of reference to model. Each sample serves one update, so the ratio is 1 in value, and clipping
    it has no effect.
    """

    reward: RewardFunction
    group: int = 8
    """Number of answers per prompt."""
    new_tokens: int = 16
    stop: int | None = None
    """Token that ends an answer."""
    beta: float = 0.04
    temperature: float = 1.0
    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.group < 2 or self.new_tokens < 1 or self.temperature <= 0:
            raise BadInput(
                "group must be at least 2, new_tokens at least 1 and temperature above 0, got "
                f"{self.group}, {self.new_tokens} and {self.temperature}."
            )

    def __call__(
        self, network: nn.Module, batch: PromptBatch, reference: nn.Module | None = None, /
    ) -> Float[Tensor, ""]:
        rollouts = sample_rollouts(
            network,
            batch.prompts,
            copies=self.group,
            new_tokens=self.new_tokens,
            stop=self.stop,
            temperature=self.temperature,
        )
        advantages = group_advantages(self.rewards(rollouts), self.group)
        return self.loss(network, rollouts, advantages, require_reference(reference))

    def rewards(self, rollouts: TokenBatch) -> Float[Tensor, " row"]:
        rewards = []
        for row, ids in enumerate(rollouts.ids):
            real = ids if rollouts.real is None else ids[rollouts.real[row]]
            start = int(rollouts.mask[row].int().argmax())  # type: ignore[index]
            answer = real[start:].tolist()
            ended = self.stop is not None and answer[-1:] == [self.stop]
            rewards.append(float(self.reward(real[:start].tolist(), answer[:-1] if ended else answer)))
        return torch.tensor(rewards)

    def loss(
        self, network: nn.Module, rollouts: TokenBatch, advantage: Float[Tensor, " row"], reference: nn.Module
    ) -> Float[Tensor, ""]:
        log_probs = token_log_probs(network, rollouts)
        with torch.no_grad():
            reference_log_probs = token_log_probs(reference, rollouts)
        log_ratio = reference_log_probs - log_probs
        ratio = (log_probs - log_probs.detach()).exp()
        gain = ratio * advantage[:, None] - self.beta * (log_ratio.exp() - log_ratio - 1)
        mask = rollouts.mask[:, 1:]  # type: ignore[index]
        return -((gain * mask).sum(-1) / mask.sum(-1)).mean()


def group_advantages(rewards: Float[Tensor, " row"], group: int) -> Float[Tensor, " row"]:
    """Rewards standardised within each group; 0 if all are equal."""
    rewards = rewards.unflatten(0, (-1, group))
    std = rewards.std(-1, correction=0, keepdim=True)
    return ((rewards - rewards.mean(-1, keepdim=True)) / std.where(std > 0, 1.0)).flatten()
