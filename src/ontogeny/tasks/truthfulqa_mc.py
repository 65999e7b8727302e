"""Does steering work? Without a judge: multiple choice by exact answer tokens, and nats per token gained and lost.

MC1 and MC2: TruthfulQA (arXiv:2109.07958). Promote and suppress at the quantiles where the model needs help most: arXiv:2410.17245.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.steering.log_likelihood import log_likelihoods, token_log_likelihoods, tokenize_answers
from ontogeny.steering.steer import Edits


@dataclass(frozen=True)
class TruthfulQAQuestion:
    """A prompt with right and wrong answers, as they follow it (with their leading space)."""

    prompt: str
    right: tuple[str, ...]
    """The best one first."""
    wrong: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.right or not self.wrong:
            raise BadInput(f"a question needs a right and a wrong answer: {self.prompt[:60]!r} lacks one. Add it.")


@dataclass(frozen=True, eq=False)
class MultipleChoiceScores:
    """One number a question."""

    mc1: Float[Tensor, " question"]
    """1 where the best answer is likelier than every wrong one."""
    mc2: Float[Tensor, " question"]
    """Share of the probability of all answers that the right ones hold."""


def score_multiple_choice(
    model: Model, questions: Sequence[TruthfulQAQuestion], edits: Edits = (), *, batch: int = 32
) -> MultipleChoiceScores:
    """MC1 and MC2 of each question; an answer's score is the sum over its own tokens."""
    pairs = [(q.prompt, answer) for q in questions for answer in (*q.right, *q.wrong)]
    scores = log_likelihoods(token_log_likelihoods(model, tokenize_answers(model, pairs), edits, batch=batch))
    rows = scores.split([len(q.right) + len(q.wrong) for q in questions])
    found = [_choice(row, len(q.right)) for row, q in zip(rows, questions, strict=True)]
    return MultipleChoiceScores(*(torch.tensor(column, dtype=torch.float64) for column in zip(*found, strict=True)))


def _choice(scores: Float[Tensor, " answer"], right: int) -> tuple[float, float]:
    best = float(scores[0] > scores[right:].max())
    return best, float((scores[:right].logsumexp(0) - scores.logsumexp(0)).exp())
