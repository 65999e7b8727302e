"""Training losses, `(network, batch, reference) -> loss` in nats. The reference model is the stage's initial checkpoint.

Preference: DPO, arXiv:2305.18290. Unlearning: gradient ascent with a retain term, and NPO, arXiv:2404.05868.
Reward: GRPO, arXiv:2402.03300.
"""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from ontogeny.errors import BadInput, unknown_name
from ontogeny.training.batches import PreferenceBatch, PromptBatch, TokenBatch, UnlearningBatch, concatenate_batches
from ontogeny.training.rollouts import RewardFunction, sample_rollouts

Objective = Callable[[nn.Module, Any, nn.Module | None], Tensor]
"""An objective that needs the reference model has a true attribute `needs_reference`."""


def language_model(network: nn.Module, batch: TokenBatch, reference: nn.Module | None = None, /) -> Float[Tensor, ""]:
    """Mean cross-entropy of the next token, without padding."""
    return _mean_loss(network, batch, batch.real)


def answers_only(network: nn.Module, batch: TokenBatch, reference: nn.Module | None = None, /) -> Float[Tensor, ""]:
    """Mean cross-entropy of the answers' tokens: supervised fine-tuning."""
    if batch.mask is None:
        raise BadInput("answers_only needs a mask of the answers' tokens: make the batch with pad_batch.")
    return _mean_loss(network, batch, batch.mask)


@dataclass(frozen=True)
class Preference:
    """DPO: -log σ(β·(log-ratio of the chosen answer - log-ratio of the rejected one)), ratios to the reference."""

    beta: float = 0.1
    beta_rejected: float | None = None
    """Weight of the rejected answer's ratio, as in arXiv:2407.10264; None: `beta`."""
    needs_reference: ClassVar[bool] = True

    def __call__(
        self, network: nn.Module, batch: PreferenceBatch, reference: nn.Module | None = None, /
    ) -> Float[Tensor, ""]:
        if batch.reference is None:
            batch = with_reference_log_probs(batch, _require_reference(reference))
        chosen, rejected = _pair_log_probs(network, batch) - batch.reference  # type: ignore[operator]
        beta_rejected = self.beta if self.beta_rejected is None else self.beta_rejected
        return -logsigmoid(self.beta * chosen - beta_rejected * rejected).mean()


@dataclass(frozen=True)
class Unlearn:
    """Unlearning: lower the likelihood of the forget set and keep that of the retain set.

    `ascent`: minus the cross-entropy of the forget set. `npo`: -(2/β)·log σ(-β·log-ratio to the reference), which
    is ascent for β -> 0 and stays bounded where ascent diverges.
    """

    method: Literal["ascent", "npo"] = "npo"
    beta: float = 0.1
    forget: float = 1.0
    """Weight of the forget term."""
    retain: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in ("ascent", "npo"):
            raise unknown_name("unlearning method", self.method, ("ascent", "npo"))

    @property
    def needs_reference(self) -> bool:
        return self.method == "npo"

    def __call__(
        self, network: nn.Module, batch: UnlearningBatch, reference: nn.Module | None = None, /
    ) -> Float[Tensor, ""]:
        retained = _mean_loss(network, batch.retain, _loss_mask(batch.retain))
        if self.method == "ascent":
            return self.retain * retained - self.forget * _mean_loss(network, batch.forget, _loss_mask(batch.forget))
        with torch.no_grad():
            reference_log_probs = answer_log_probs(_require_reference(reference), batch.forget)
        ratio = answer_log_probs(network, batch.forget) - reference_log_probs
        return self.retain * retained - self.forget * 2 / self.beta * logsigmoid(-self.beta * ratio).mean()


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
        return self.loss(network, rollouts, advantages, _require_reference(reference))

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


def token_log_probs(network: nn.Module, batch: TokenBatch) -> Float[Tensor, "row token"]:
    """Log-probability of each token after the first of a row, given the previous ones."""
    logits = network(batch.ids, use_cache=False).logits[:, :-1].float()
    return -cross_entropy(logits.transpose(1, 2), batch.ids[:, 1:], reduction="none")


def answer_log_probs(network: nn.Module, batch: TokenBatch) -> Float[Tensor, " row"]:
    """Log-probability of each row's answer: the sum over its tokens."""
    log_probs, mask = token_log_probs(network, batch), _loss_mask(batch)
    return log_probs.sum(-1) if mask is None else (log_probs * mask[:, 1:]).sum(-1)


@torch.no_grad()
def with_reference_log_probs(batch: PreferenceBatch, reference: nn.Module) -> PreferenceBatch:
    """The batch with its log-probabilities under the reference model, to compute them once per data set."""
    return replace(batch, reference=_pair_log_probs(reference, batch))


def describe_objective(objective: Objective) -> dict[str, Any]:
    """An objective as JSON, to compare the settings of runs."""
    if isinstance(objective, functools.partial):
        return {
            **describe_objective(objective.func),
            **{key: _jsonable(value) for key, value in objective.keywords.items()},
        }
    if is_dataclass(objective) and not isinstance(objective, type):
        settings = {field.name: _jsonable(getattr(objective, field.name)) for field in fields(objective)}
        return {"name": type(objective).__name__, **settings}
    return {"name": getattr(objective, "__name__", type(objective).__name__)}


def _jsonable(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_jsonable(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return getattr(value, "__name__", type(value).__name__)


def _mean_loss(network: nn.Module, batch: TokenBatch, mask: Bool[Tensor, "row token"] | None) -> Float[Tensor, ""]:
    logits, targets = network(batch.ids, use_cache=False).logits[:, :-1], batch.ids[:, 1:]
    if mask is None:
        return cross_entropy(logits.flatten(0, 1), targets.flatten())
    # The mean over all tokens, not per row first, so that padding does not change the weights.
    return cross_entropy(logits[mask[:, 1:]], targets[mask[:, 1:]])


def _loss_mask(batch: TokenBatch) -> Bool[Tensor, "row token"] | None:
    return batch.real if batch.mask is None else batch.mask


def _pair_log_probs(network: nn.Module, batch: PreferenceBatch) -> Float[Tensor, "side row"]:
    """Log-probabilities of chosen and rejected answers, in one forward pass."""
    return torch.stack(answer_log_probs(network, concatenate_batches(batch.chosen, batch.rejected)).chunk(2))


def _require_reference(reference: nn.Module | None) -> nn.Module:
    if reference is None:
        raise BadInput("the objective needs a reference model: set `reference` to the stage's initial model.")
    return reference
