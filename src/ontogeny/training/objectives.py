"""What a stage minimises: `(network, batch, reference) -> loss`, nats; the reference is the stage's start, where one is asked for.

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

from ontogeny.errors import BadInput
from ontogeny.training.batches import PreferenceBatch, PromptBatch, TokenBatch, UnlearningBatch, concatenate_batches
from ontogeny.training.rollouts import RewardFunction, sample_rollouts

Objective = Callable[[nn.Module, Any, nn.Module | None], Tensor]
"""One that needs the reference says so by an attribute `needs_reference`."""


def language_model(network: nn.Module, batch: TokenBatch, reference: nn.Module | None = None, /) -> Float[Tensor, ""]:
    """Mean cross-entropy of the next token, over all that is no padding."""
    return _mean_loss(network, batch, batch.real)


def answers_only(network: nn.Module, batch: TokenBatch, reference: nn.Module | None = None, /) -> Float[Tensor, ""]:
    """Mean cross-entropy of the answers' tokens alone: supervised fine-tuning."""
    if batch.mask is None:
        raise BadInput("answers_only needs a mask of the answers' tokens, and the batch has none. Make it with pad().")
    return _mean_loss(network, batch, batch.mask)


@dataclass(frozen=True)
class Preference:
    """DPO: -log σ(β·(log-ratio of the chosen answer - log-ratio of the rejected one)), ratios to the reference."""

    beta: float = 0.1
    beta_rejected: float | None = None
    """Another weight of the rejected answer's ratio, as in arXiv:2407.10264; None: the same."""
    needs_reference: ClassVar[bool] = True

    def __call__(
        self, network: nn.Module, batch: PreferenceBatch, reference: nn.Module | None = None, /
    ) -> Float[Tensor, ""]:
        if batch.reference is None:
            batch = with_reference_log_probs(batch, _require_reference(reference))
        chosen, rejected = _pair_log_probs(network, batch) - batch.reference  # type: ignore[operator]
        other = self.beta if self.beta_rejected is None else self.beta_rejected
        return -logsigmoid(self.beta * chosen - other * rejected).mean()


@dataclass(frozen=True)
class Unlearn:
    """Less likely: the forget set; as likely as before: the retain set.

    `ascent`: minus the cross-entropy of the forget set. `npo`: -(2/β)·log σ(-β·log-ratio to the reference), which
    is ascent for β -> 0 and comes to rest where ascent diverges.
    """

    method: Literal["ascent", "npo"] = "npo"
    beta: float = 0.1
    forget: float = 1.0
    """Weight of the forget term."""
    retain: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in ("ascent", "npo"):
            raise BadInput(f"no way of unlearning called {self.method!r}; known: ascent, npo.")

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
            before = answer_log_probs(_require_reference(reference), batch.forget)
        ratio = answer_log_probs(network, batch.forget) - before
        return self.retain * retained - self.forget * 2 / self.beta * logsigmoid(-self.beta * ratio).mean()


@dataclass(frozen=True)
class GroupRelative:
    """GRPO: several answers to each prompt are drawn; what is better than its group becomes likelier, near the reference.

    -mean over answers of the mean over their tokens of ratio·A - β·KL, with A = (reward - mean) / std within the group and
    KL = exp(r) - r - 1, r the log-ratio of reference to model. Each draw is used for one update: the ratio is 1 in value, and its
    clip never acts.
    """

    reward: RewardFunction
    group: int = 8
    """Answers to each prompt."""
    new_tokens: int = 16
    stop: int | None = None
    """The token that ends an answer."""
    beta: float = 0.04
    temperature: float = 1.0
    needs_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.group < 2 or self.new_tokens < 1 or self.temperature <= 0:
            raise BadInput(
                f"groups of {self.group} answers of {self.new_tokens} tokens at temperature {self.temperature} "
                "compare nothing. Take at least 2 answers, 1 token and a temperature above 0."
            )

    def __call__(
        self, network: nn.Module, batch: PromptBatch, reference: nn.Module | None = None, /
    ) -> Float[Tensor, ""]:
        drawn = sample_rollouts(
            network,
            batch.prompts,
            copies=self.group,
            new_tokens=self.new_tokens,
            stop=self.stop,
            temperature=self.temperature,
        )
        return self.loss(
            network, drawn, group_advantages(self.rewards(drawn), self.group), _require_reference(reference)
        )

    def rewards(self, drawn: TokenBatch) -> Float[Tensor, " row"]:
        found = []
        for row, ids in enumerate(drawn.ids):
            real = ids if drawn.real is None else ids[drawn.real[row]]
            start = int(drawn.mask[row].int().argmax())  # type: ignore[index]
            answer = real[start:].tolist()
            ended = self.stop is not None and answer[-1:] == [self.stop]
            found.append(float(self.reward(real[:start].tolist(), answer[:-1] if ended else answer)))
        return torch.tensor(found)

    def loss(
        self, network: nn.Module, drawn: TokenBatch, advantage: Float[Tensor, " row"], reference: nn.Module
    ) -> Float[Tensor, ""]:
        found = token_log_probs(network, drawn)
        with torch.no_grad():
            before = token_log_probs(reference, drawn)
        away = before - found
        ratio = (found - found.detach()).exp()
        gain = ratio * advantage[:, None] - self.beta * (away.exp() - away - 1)
        mask = drawn.mask[:, 1:]  # type: ignore[index]
        return -((gain * mask).sum(-1) / mask.sum(-1)).mean()


def group_advantages(rewards: Float[Tensor, " row"], group: int) -> Float[Tensor, " row"]:
    """How much better than its group each answer is, in the group's standard deviations; 0 where all are alike."""
    rewards = rewards.unflatten(0, (-1, group))
    spread = rewards.std(-1, correction=0, keepdim=True)
    return ((rewards - rewards.mean(-1, keepdim=True)) / spread.where(spread > 0, 1.0)).flatten()


preference = Preference()
unlearn = Unlearn()


def token_log_probs(network: nn.Module, batch: TokenBatch) -> Float[Tensor, "row token"]:
    """Log-probability of each token but the first of a row, given those before it."""
    logits = network(batch.ids, use_cache=False).logits[:, :-1].float()
    return -cross_entropy(logits.transpose(1, 2), batch.ids[:, 1:], reduction="none")


def answer_log_probs(network: nn.Module, batch: TokenBatch) -> Float[Tensor, " row"]:
    """Log-probability of each row's answer: the sum over its tokens."""
    found = token_log_probs(network, batch)
    counted = _loss_mask(batch)
    return found.sum(-1) if counted is None else (found * counted[:, 1:]).sum(-1)


@torch.no_grad()
def with_reference_log_probs(batch: PreferenceBatch, reference: nn.Module) -> PreferenceBatch:
    """The pairs with what the reference model says of them, so that a whole data set needs to be asked only once."""
    return replace(batch, reference=_pair_log_probs(reference, batch))


def describe_objective(objective: Objective) -> dict[str, Any]:
    """An objective as words and numbers, to tell two runs apart."""
    if isinstance(objective, functools.partial):
        return {
            **describe_objective(objective.func),
            **{key: _jsonable(value) for key, value in objective.keywords.items()},
        }
    if is_dataclass(objective) and not isinstance(objective, type):
        shown = {field.name: getattr(objective, field.name) for field in fields(objective)}
        return {"name": type(objective).__name__, **{key: _jsonable(value) for key, value in shown.items()}}
    return {"name": getattr(objective, "__name__", type(objective).__name__)}


def _jsonable(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_jsonable(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return getattr(value, "__name__", type(value).__name__)


def _mean_loss(network: nn.Module, batch: TokenBatch, counted: Bool[Tensor, "row token"] | None) -> Float[Tensor, ""]:
    logits, targets = network(batch.ids, use_cache=False).logits[:, :-1], batch.ids[:, 1:]
    if counted is None:
        return cross_entropy(logits.flatten(0, 1), targets.flatten())
    # Means over tokens, not over rows and then over tokens: padding must not weigh.
    return cross_entropy(logits[counted[:, 1:]], targets[counted[:, 1:]])


def _loss_mask(batch: TokenBatch) -> Bool[Tensor, "row token"] | None:
    return batch.real if batch.mask is None else batch.mask


def _pair_log_probs(network: nn.Module, batch: PreferenceBatch) -> Float[Tensor, "side row"]:
    """Chosen and rejected in one pass."""
    return torch.stack(answer_log_probs(network, concatenate_batches(batch.chosen, batch.rejected)).chunk(2))


def _require_reference(reference: nn.Module | None) -> nn.Module:
    if reference is None:
        raise BadInput("this objective compares with a reference model, and was given none. Pass the stage's start.")
    return reference
