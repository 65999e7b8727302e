"""GRPO losses (arXiv:2402.03300): one update a sample, or several with a clipped ratio."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
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
    it has no effect; `ontogeny.training.grpo` takes several updates.
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
        return policy_loss(log_probs, log_probs.detach(), reference_log_probs, advantage, rollouts, beta=self.beta)


@dataclass(frozen=True)
class ScoredRollouts:
    """Rollouts with their advantages, and the log-probabilities of their tokens at the time of sampling."""

    rollouts: TokenBatch
    advantages: Float[Tensor, " row"]
    sampled: Float[Tensor, "row token"]
    """Under the model that sampled them, of each token after the first."""
    reference: Float[Tensor, "row token"]

    @property
    def tokens(self) -> int:
        return self.rollouts.tokens

    def rows(self, chosen: Int[Tensor, " row"]) -> "ScoredRollouts":
        """Some of the rows."""
        whole = self.rollouts
        parts = (None if part is None else part[chosen] for part in (whole.mask, whole.real))
        batch = TokenBatch(whole.ids[chosen], *parts)
        return ScoredRollouts(batch, self.advantages[chosen], self.sampled[chosen], self.reference[chosen])


@dataclass(frozen=True)
class ClippedPolicy:
    """GRPO with a clipped ratio: -mean of min(ratio·A, clip(ratio, 1 - ε, 1 + ε)·A) - β·KL, for several updates of one sample."""

    clip: float = 0.2
    """ε."""
    beta: float = 0.04

    def __post_init__(self) -> None:
        if not (0 < self.clip < 1 and self.beta >= 0):
            raise BadInput(
                f"`clip` must lie between 0 and 1 and `beta` be at least 0, got {self.clip} and {self.beta}."
            )

    def __call__(
        self, network: nn.Module, batch: ScoredRollouts, reference: nn.Module | None = None, /
    ) -> Float[Tensor, ""]:
        log_probs = token_log_probs(network, batch.rollouts)
        return policy_loss(
            log_probs, batch.sampled, batch.reference, batch.advantages, batch.rollouts, beta=self.beta, clip=self.clip
        )


def policy_loss(
    log_probs: Float[Tensor, "row token"],
    sampled: Float[Tensor, "row token"],
    reference: Float[Tensor, "row token"],
    advantage: Float[Tensor, " row"],
    rollouts: TokenBatch,
    *,
    beta: float,
    clip: float | None = None,
) -> Float[Tensor, ""]:
    """GRPO loss from the log-probabilities of each token after the first; None for no clipping."""
    log_ratio = reference - log_probs
    ratio = (log_probs - sampled).exp()
    gain = ratio * advantage[:, None]
    if clip is not None:
        gain = torch.minimum(gain, ratio.clamp(1 - clip, 1 + clip) * advantage[:, None])
    gain = gain - beta * (log_ratio.exp() - log_ratio - 1)
    mask = rollouts.mask[:, 1:]  # type: ignore[index]
    return -((gain * mask).sum(-1) / mask.sum(-1)).mean()


def group_advantages(rewards: Float[Tensor, " row"], group: int) -> Float[Tensor, " row"]:
    """Rewards standardised within each group; 0 if all are equal."""
    rewards = rewards.unflatten(0, (-1, group))
    std = rewards.std(-1, correction=0, keepdim=True)
    return ((rewards - rewards.mean(-1, keepdim=True)) / std.where(std > 0, 1.0)).flatten()
