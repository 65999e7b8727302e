"""Does steering work? Without a judge: multiple choice by exact answer tokens, and nats per token gained and lost.

MC1 and MC2: TruthfulQA (arXiv:2109.07958). Promote and suppress at the quantiles where the model needs help most: arXiv:2410.17245.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.lab.answers import answers_of, sums, token_scores
from ontogeny.lab.steering import Edits
from ontogeny.model import Model
from ontogeny.statistics import bootstrap

QUANTILES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Question:
    """A prompt with right and wrong answers, as they follow it (with their leading space)."""

    prompt: str
    right: tuple[str, ...]
    """The best one first."""
    wrong: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.right or not self.wrong:
            raise BadInput(f"a question needs a right and a wrong answer: {self.prompt[:60]!r} lacks one. Add it.")


@dataclass(frozen=True, eq=False)
class Choices:
    """One number a question."""

    mc1: Float[Tensor, " question"]
    """1 where the best answer is likelier than every wrong one."""
    mc2: Float[Tensor, " question"]
    """Share of the probability of all answers that the right ones hold."""


def multiple_choice(model: Model, questions: Sequence[Question], edits: Edits = (), *, batch: int = 32) -> Choices:
    """MC1 and MC2 of each question; an answer's score is the sum over its own tokens."""
    pairs = [(q.prompt, answer) for q in questions for answer in (*q.right, *q.wrong)]
    scores = sums(token_scores(model, answers_of(model, pairs), edits, batch=batch))
    rows = scores.split([len(q.right) + len(q.wrong) for q in questions])
    found = [_choice(row, len(q.right)) for row, q in zip(rows, questions, strict=True)]
    return Choices(*(torch.tensor(column, dtype=torch.float64) for column in zip(*found, strict=True)))


def _choice(scores: Float[Tensor, " answer"], right: int) -> tuple[float, float]:
    best = float(scores[0] > scores[right:].max())
    return best, float((scores[:right].logsumexp(0) - scores.logsumexp(0)).exp())


@dataclass(frozen=True)
class Quantile:
    """What steering does to the share of items where the unsteered model needs it most."""

    share: float
    promote: tuple[float, float, float]
    """Mean gain of matching items, nats per token, with its 95 % interval."""
    suppress: tuple[float, float, float]
    """Mean loss of the others."""


def promote_suppress(
    base: Float[Tensor, " item"],
    steered: Float[Tensor, " item"],
    matching: Bool[Tensor, " item"],
    prompts: Sequence[object],
    *,
    shares: Sequence[float] = QUANTILES,
    samples: int = 1000,
    seed: int = 0,
) -> list[Quantile]:
    """Gains and losses in nats per token at each share, with intervals by paired resampling of prompts.

    Matching items count from the least likely on, the others from the likeliest: ceilings are left out by construction.

    Raises:
        BadInput: all items match, or none does.
    """
    if matching.all() or not matching.any():
        raise BadInput(
            "promote and suppress need items that match the behaviour and items that do not. Add the other kind."
        )
    numbers = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    groups = torch.tensor([numbers[prompt] for prompt in prompts])
    weights = bootstrap.group_weights(groups, samples=samples, seed=seed).double()
    weights = torch.cat([torch.ones(1, len(base), dtype=torch.float64), weights])
    gain = (steered - base).double()
    found = []
    for share in shares:
        sides = []
        for side, sign in ((matching, 1.0), (~matching, -1.0)):
            order = (sign * base[side]).argsort()
            mean = _mean_of_first((sign * gain[side])[order], weights[:, side][:, order], share)
            ends = bootstrap.interval(mean[0], mean[1:], groups=len(numbers))
            sides.append((float(mean[0]), float(ends.low), float(ends.high)))
        found.append(Quantile(share, *sides))
    return found


def _mean_of_first(
    values: Float[Tensor, " item"], weights: Float[Tensor, "sample item"], share: float
) -> Float[Tensor, " sample"]:
    """Mean over the first share of the weight; an item on the edge counts in part."""
    wanted = share * weights.sum(1, keepdim=True)
    counted = torch.minimum(weights, (wanted - (weights.cumsum(1) - weights)).clamp(min=0))
    return (counted @ values) / counted.sum(1)
