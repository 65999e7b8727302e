"""Items asked of a model: the likelihood of both continuations under any edits, with the forward passes counted.

Edits of `last` and `generated` tokens leave the prompts alone: these run once, and a grid or two hundred controls cost the continuations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.lab.answers import Answer, answers_of, per_token, sums, token_scores
from ontogeny.lab.items import Item
from ontogeny.lab.prefixed import Prefixed
from ontogeny.lab.steering import Edits, edits_of
from ontogeny.model import Model

BATCH = 128


@dataclass
class Passes:
    """What asking cost."""

    prompts: int = 0
    """Rows whose prompts were run once, and their keys and values kept."""
    answers: int = 0
    """Rows of continuations run behind a kept prompt; those that differ in their last token alone are one."""
    whole: int = 0
    """Prompts and continuations run together."""

    @property
    def forwards(self) -> int:
        return self.prompts + self.answers + self.whole


@dataclass(frozen=True, eq=False)
class Scores:
    """Log-probabilities of the continuations, nats; column 0 shows the concept."""

    whole: Float[Tensor, "item side"]
    per_token: Float[Tensor, "item side"]

    @property
    def margin(self) -> Float[Tensor, " item"]:
        """How much likelier the continuation is that shows the concept, nats."""
        return self.whole[:, 0] - self.whole[:, 1]


@dataclass(frozen=True, eq=False)
class Asked:
    """Items as tokens of one model; `ready` where their prompts have run."""

    model: Model
    items: tuple[Item, ...]
    answers: tuple[Answer, ...]
    ready: Prefixed | None
    passes: Passes = field(default_factory=Passes)

    @classmethod
    def of(cls, model: Model, items: Sequence[Item], *, cached: bool, passes: Passes | None = None) -> "Asked":
        """Tokenise, and run the prompts where they may be kept.

        Raises:
            BadInput: a continuation without tokens, or two that are the same tokens.
        """
        answers = answers_of(model, [(item.prompt, text) for item in items for text in (item.matching, item.other)])
        for item, one, other in zip(items, answers[0::2], answers[1::2], strict=True):
            if one.ids.tolist() == other.ids.tolist():
                raise BadInput(
                    f"the answers {item.matching!r} and {item.other!r} are the same tokens for this model. Change one."
                )
        counted = passes or Passes()
        ready = Prefixed.of(model, answers, batch=BATCH) if cached else None
        counted.prompts += len(ready.rows) if ready else 0
        return cls(model, tuple(items), tuple(answers), ready, counted)

    def scores(self, edits: Edits = ()) -> Scores:
        """Both continuations of each item under the edits."""
        if self.ready is None:
            self.passes.whole += len(self.answers)
            found = token_scores(self.model, self.answers, edits, batch=BATCH)
        else:
            self.passes.answers += len(self.ready.rows)
            found = self.ready.scores(edits)
        return Scores(sums(found).view(-1, 2), per_token(found).view(-1, 2))


def kept_prompts(edits: Edits) -> bool:
    """Whether prompts may run once: nothing before their last token is edited."""
    return all(e.where in ("last", "generated") and e.what.kind == "activation" for e in edits_of(edits))


def in_front(items: Sequence[Item], text: str) -> list[Item]:
    """The same items with a text before their prompts: what an instruction does without any vector."""
    return [Item(f"{text.rstrip()} {item.prompt}", item.matching, item.other, item.group) for item in items]


def means(values: Float[Tensor, " item"], weights: Float[Tensor, "sample item"]) -> Float[Tensor, " sample"]:
    """Weighted mean over items in each resample."""
    return (weights.double() @ values.double()) / weights.double().sum(1)


def mean_with_ends(values: Float[Tensor, " item"], groups: Tensor, *, seed: int = 0) -> tuple[float, float, float]:
    """Mean over items with its 95 % interval by group."""
    from ontogeny.statistics import bootstrap

    point = values.double().mean()
    weights = bootstrap.group_weights(groups, samples=1000, seed=seed)
    ends = bootstrap.interval(point, means(values, weights), groups=len(groups.unique()))
    return float(point), float(torch.as_tensor(ends.low)), float(torch.as_tensor(ends.high))
