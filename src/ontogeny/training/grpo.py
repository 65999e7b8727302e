"""GRPO in rounds: sample groups of answers, reward them, and take several clipped updates (arXiv:2402.03300, arXiv:1707.06347).

A group whose answers have equal rewards has no advantage and gives no gradient, although the loss, which keeps its KL term, looks alive.
The share of such groups is measured in each round, and the training stops where it stays high.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ontogeny.errors import BadInput
from ontogeny.training.batches import TokenBatch
from ontogeny.training.loop import TrainingConfig, TrainingRecipe, TrainingSession, make_optimizer, train_step
from ontogeny.training.objectives.grpo import ClippedPolicy, ScoredRollouts, group_advantages
from ontogeny.training.objectives.log_probs import token_log_probs
from ontogeny.training.rollouts import sample_rollouts

RolloutReward = Callable[[TokenBatch], Float[Tensor, " row"]]
"""Rewards of all rollouts of a round; `GroupRelative(…).rewards` makes one from a reward of single answers."""


@dataclass(frozen=True)
class GrpoConfig:
    """Settings of GRPO."""

    rounds: int
    """Each samples new answers."""
    group: int = 8
    """Answers to a prompt."""
    new_tokens: int = 64
    updates: int = 2
    """Steps of the optimiser in a round, each on an equal part of the answers."""
    stop: int | None = None
    """Token that ends an answer."""
    temperature: float = 1.0
    clip: float = 0.2
    beta: float = 0.04
    learning_rate: float = 3e-4
    warmup: int = 4
    """Updates."""
    most_equal: float = 0.8
    """Share of groups with equal rewards, mean over `patience` rounds, above which the training stops."""
    patience: int = 5

    def __post_init__(self) -> None:
        if self.group < 2:
            raise BadInput(
                f"`group` must be at least 2, got {self.group}: a single answer has no others to be better than."
            )
        if min(self.rounds, self.updates, self.new_tokens, self.patience) < 1 or self.temperature <= 0:
            raise BadInput(
                "`rounds`, `updates`, `new_tokens` and `patience` must be at least 1 and `temperature` above 0, got "
                f"{self.rounds}, {self.updates}, {self.new_tokens}, {self.patience} and {self.temperature}."
            )
        if not 0 < self.most_equal <= 1:
            raise BadInput(f"`most_equal` must lie above 0 and at most at 1, got {self.most_equal}.")
        ClippedPolicy(self.clip, self.beta)


@dataclass(frozen=True, eq=False)
class GrpoRound:
    """Outcome of one round."""

    number: int
    """From 1."""
    network: nn.Module
    """The network after the round, in training mode; it is one object."""
    rollouts: TokenBatch
    rewards: Float[Tensor, " row"]
    equal_groups: float
    """Share of groups with equal rewards, whose advantages are 0."""
    truncated: float
    """Share of answers without their stop token; NaN if there is none."""
    length: float
    """Mean tokens of an answer."""
    kl: float
    """Of the reference, at the time of sampling, nats per token."""
    clipped: float
    """Share of tokens whose ratio is outside of the clip before the last update of the round."""
    stopped: str = ""
    """Why the training stopped after this round; "" if it goes on."""

    @property
    def reward(self) -> float:
        """Mean reward."""
        return float(self.rewards.double().mean())


def grpo_rounds(
    network: nn.Module,
    prompts: Callable[[int], TokenBatch],
    reward: RolloutReward,
    config: GrpoConfig,
    *,
    seed: int = 0,
) -> Iterator[GrpoRound]:
    """Train the network in place, and yield each round. The network as given is the reference.

    Rounds whose groups all have equal rewards take no step. The process's random numbers are restored at the end.

    Args:
        prompts: The prompts of a round, from 1 on; equally many in each.
        reward: Higher is better.

    Raises:
        BadInput: rewards that are not finite or not one per answer, fewer answers than updates, or a loss that is not finite.
    """
    stopping = TrainingConfig(
        config.rounds * config.updates, config.learning_rate, warmup=config.warmup, floor=1.0, weight_decay=0.0
    )
    objective = ClippedPolicy(config.clip, config.beta)
    recipe = TrainingRecipe(lambda: network, _no_batch, objective, stopping, seed)
    reference = copy.deepcopy(network).eval().requires_grad_(False)
    session = TrainingSession(network.train(), make_optimizer(network, stopping), None)
    recent: deque[float] = deque(maxlen=config.patience)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number in range(1, config.rounds + 1):
            batch = prompts(number)
            rollouts = sample_rollouts(
                network,
                batch,
                copies=config.group,
                new_tokens=config.new_tokens,
                stop=config.stop,
                temperature=config.temperature,
            )
            rewards = _checked(reward(rollouts), len(rollouts.ids), config)
            scored = _score(network, reference, rollouts, group_advantages(rewards, config.group))
            groups = rewards.unflatten(0, (-1, config.group))
            recent.append(float((groups == groups[:, :1]).all(1).float().mean()))
            stopped, clipped = _why_stop(recent, config, number, float(rewards.mean())), 0.0
            if recent[-1] < 1:
                *others, final = torch.randperm(len(rewards)).chunk(config.updates)
                for chosen in others:
                    train_step(session, recipe, scored.rows(chosen))
                clipped = _clipped_share(network, scored.rows(final), config.clip)
                train_step(session, recipe, scored.rows(final))
            yield GrpoRound(
                number,
                network,
                rollouts,
                rewards,
                recent[-1],
                _truncated(rollouts, config.stop),
                float(rollouts.mask.sum(1).float().mean()),  # type: ignore[union-attr]
                _mean_kl(scored),
                clipped,
                stopped,
            )
            if stopped:
                return


def _no_batch(step: int) -> Any:
    raise NotImplementedError("a round makes its own batches")


def _checked(rewards: Float[Tensor, " row"], rows: int, config: GrpoConfig) -> Float[Tensor, " row"]:
    if tuple(rewards.shape) != (rows,) or not bool(rewards.isfinite().all()):
        raise BadInput(
            f"`reward` must give one finite number for each of {rows} answers, got the shape {tuple(rewards.shape)}: check it."
        )
    if rows < config.updates:
        raise BadInput(f"`updates` must be at most the {rows} answers of a round, got {config.updates}.")
    return rewards.float()


@torch.no_grad()
def _score(
    network: nn.Module, reference: nn.Module, rollouts: TokenBatch, advantages: Float[Tensor, " row"]
) -> ScoredRollouts:
    return ScoredRollouts(
        rollouts, advantages, token_log_probs(network, rollouts), token_log_probs(reference, rollouts)
    )


def _mean_kl(scored: ScoredRollouts) -> float:
    log_ratio = scored.reference - scored.sampled
    return _token_mean(log_ratio.exp() - log_ratio - 1, scored.rollouts)


@torch.no_grad()
def _clipped_share(network: nn.Module, scored: ScoredRollouts, clip: float) -> float:
    ratio = (token_log_probs(network, scored.rollouts) - scored.sampled).exp()
    return _token_mean(((ratio - 1).abs() > clip).float(), scored.rollouts)


def _token_mean(values: Float[Tensor, "row token"], rollouts: TokenBatch) -> float:
    return float(values[rollouts.mask[:, 1:]].double().mean())  # type: ignore[index]


def _truncated(rollouts: TokenBatch, stop: int | None) -> float:
    if stop is None:
        return float("nan")
    ended = (rollouts.ids == stop) & rollouts.mask  # type: ignore[operator]
    return 1 - float(ended.any(1).float().mean())


def _why_stop(recent: deque[float], config: GrpoConfig, number: int, reward: float) -> str:
    share = sum(recent) / len(recent)
    if len(recent) < config.patience or share <= config.most_equal:
        return ""
    return (
        f"GRPO stopped after round {number}: in {share:.0%} of the groups all rewards are equal (mean of {len(recent)} rounds, limit "
        f"{config.most_equal:.0%}; mean reward {reward:.2g}), so that they give no gradient: use partial credit, larger groups or other "
        "prompts."
    )
