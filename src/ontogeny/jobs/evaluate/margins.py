"""Log-likelihoods of both continuations of contrast items under any edits, with the forward passes counted.

Edits of `last` and `generated` tokens do not change the prompts, so these run once and a grid or 200 controls cost the continuations only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.data.templates import Template
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.steering.cached_prompts import CachedPrompts
from ontogeny.steering.log_likelihood import (
    TokenizedAnswer,
    log_likelihoods,
    mean_log_likelihoods,
    token_log_likelihoods,
    tokenize_answers,
)
from ontogeny.steering.steer import Edits, as_edits
from ontogeny.tasks.contrast_items import ContrastItem

_BATCH_SIZE = 128


@dataclass
class ForwardCounter:
    """Rows of forward passes."""

    prompts: int = 0
    """Prompts run into a KV cache."""
    answers: int = 0
    """Continuations run on a cached prompt; those that differ in their last token alone are one row."""
    whole: int = 0
    """Prompts and continuations run together."""

    @property
    def total(self) -> int:
        return self.prompts + self.answers + self.whole


@dataclass(frozen=True, eq=False)
class ContinuationScores:
    """Log-probabilities of the continuations, nats; column 0 shows the concept."""

    whole: Float[Tensor, "item side"]
    per_token: Float[Tensor, "item side"]

    @property
    def margin(self) -> Float[Tensor, " item"]:
        """Log-likelihood of the continuation that shows the concept minus that of the other, nats."""
        return self.whole[:, 0] - self.whole[:, 1]


@dataclass(frozen=True, eq=False)
class ScoredItems:
    """Items as tokens of one model."""

    model: Model
    items: tuple[ContrastItem, ...]
    answers: tuple[TokenizedAnswer, ...]
    cached_prompts: CachedPrompts | None
    passes: ForwardCounter = field(default_factory=ForwardCounter)
    template: Template = False

    @classmethod
    def of(
        cls,
        model: Model,
        items: Sequence[ContrastItem],
        *,
        cached: bool,
        passes: ForwardCounter | None = None,
        template: Template = False,
    ) -> "ScoredItems":
        """Tokenise the items, in their template, and, if `cached`, run their prompts.

        Raises:
            BadInput: a continuation without tokens, or two that are the same tokens.
        """
        answers = tokenize_answers(
            model, [(item.prompt, text) for item in items for text in (item.matching, item.other)], template=template
        )
        for item, matching, other in zip(items, answers[0::2], answers[1::2], strict=True):
            if matching.ids.tolist() == other.ids.tolist():
                raise BadInput(
                    f"the answers {item.matching!r} and {item.other!r} are the same tokens for this model: change one."
                )
        passes = passes or ForwardCounter()
        prompts = CachedPrompts.of(model, answers, batch=_BATCH_SIZE) if cached else None
        passes.prompts += len(prompts.rows) if prompts else 0
        return cls(model, tuple(items), tuple(answers), prompts, passes, template)

    def scores(self, edits: Edits = ()) -> ContinuationScores:
        """Both continuations of each item under the edits."""
        if self.cached_prompts is None:
            self.passes.whole += len(self.answers)
            scores = token_log_likelihoods(self.model, self.answers, edits, batch=_BATCH_SIZE)
        else:
            self.passes.answers += len(self.cached_prompts.rows)
            scores = self.cached_prompts.scores(edits)
        return ContinuationScores(log_likelihoods(scores).view(-1, 2), mean_log_likelihoods(scores).view(-1, 2))


def can_cache_prompts(edits: Edits) -> bool:
    """Whether no edit changes a token before the last of a prompt, so that the prompts can be cached."""
    return all(e.where in ("last", "generated") and e.what.kind == "activation" for e in as_edits(edits))


def prepend_text(items: Sequence[ContrastItem], text: str) -> list[ContrastItem]:
    """The same items with a text before their prompts."""
    return [ContrastItem(f"{text.rstrip()} {item.prompt}", item.matching, item.other, item.group) for item in items]


def weighted_means(values: Float[Tensor, " item"], weights: Float[Tensor, "sample item"]) -> Float[Tensor, " sample"]:
    """Weighted mean over items in each resample."""
    return (weights.double() @ values.double()) / weights.double().sum(1)


def mean_with_interval(values: Float[Tensor, " item"], groups: Tensor, *, seed: int = 0) -> tuple[float, float, float]:
    """Mean over items with its 95 % interval by group."""
    from ontogeny.statistics import bootstrap

    point = values.double().mean()
    weights = bootstrap.group_weights(groups, samples=1000, seed=seed)
    ends = bootstrap.percentile_interval(point, weighted_means(values, weights), groups=len(groups.unique()))
    return float(point), float(torch.as_tensor(ends.low)), float(torch.as_tensor(ends.high))


def share_with_interval(values: Float[Tensor, " item"], groups: Tensor, seed: int = 0) -> tuple[float, float, float]:
    """Mean of shares between 0 and 1, with its 95 % interval by group."""
    from ontogeny.statistics import bootstrap

    weights = bootstrap.group_weights(groups, samples=1000, seed=seed)
    point, resampled = values.double().mean(), bootstrap.mean_samples(values.double()[None], weights)[:, 0]
    ends = bootstrap.share_interval(point, resampled, groups=len(groups.unique()))
    return float(point), float(ends.low), float(ends.high)
