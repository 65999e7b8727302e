"""Accuracy on multiple-choice tasks by the likelihood of the options, unnormalised and normalised by length.

`accuracy` takes the option of the highest log-probability, `accuracy_normalised` divides by the option's number of characters
without its leading space, as lm-evaluation-harness does (arXiv:2405.14782). With one option (LAMBADA) an answer is correct if each of
its tokens is the likeliest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.steering.log_likelihood import (
    TokenizedAnswer,
    answer_logits,
    log_likelihoods,
    token_log_likelihoods,
    tokenize_answers,
)
from ontogeny.steering.steer import Edits
from ontogeny.tasks.datasets import MultipleChoiceQuestion


@dataclass(frozen=True, eq=False)
class QuestionAccuracy:
    """One number per question."""

    plain: Float[Tensor, " question"]
    """1 where the likeliest option is correct."""
    normalised: Float[Tensor, " question"]
    """The same with log-likelihoods divided by the options' characters."""


@dataclass(frozen=True, eq=False)
class MultipleChoiceTask:
    """Questions that fit the context of a model, as its tokens."""

    name: str
    questions: tuple[MultipleChoiceQuestion, ...]
    answers: tuple[TokenizedAnswer, ...]
    left_out: int
    """Questions longer than the context."""

    @classmethod
    def of(
        cls,
        model: Model,
        name: str,
        questions: Sequence[MultipleChoiceQuestion],
        *,
        limit: int | None = None,
        seed: int = 0,
    ) -> "MultipleChoiceTask":
        """At most `limit` of the questions that fit, drawn at random.

        Raises:
            BadInput: none fits, or an option has no tokens.
        """
        order = torch.randperm(len(questions), generator=torch.Generator().manual_seed(seed)).tolist()
        kept: list[MultipleChoiceQuestion] = []
        answers: list[TokenizedAnswer] = []
        left_out = 0
        for question in (questions[i] for i in order):
            if limit is not None and len(kept) == limit:
                break
            prompts = question.prompts or (question.prompt,) * len(question.options)
            options = tokenize_answers(model, list(zip(prompts, question.options, strict=True)), check_context=False)
            if max(len(option.ids) for option in options) > model.context:
                left_out += 1
            else:
                kept.append(question)
                answers += options
        if not kept:
            raise BadInput(
                f"a question of {name} must fit the context of {model.context} tokens, none does: choose another task."
            )
        return cls(name, tuple(kept), tuple(answers), left_out)

    def answered(self, model: Model, edits: Edits = ()) -> QuestionAccuracy:
        """Which questions the model gets right under the edits."""
        if all(len(q.options) == 1 for q in self.questions):
            right = _is_greedy(model, self.answers, edits)
            return QuestionAccuracy(right, right)
        scores = log_likelihoods(token_log_likelihoods(model, self.answers, edits))
        sizes = torch.tensor([len(option.removeprefix(" ")) for q in self.questions for option in q.options]).double()
        counts = [len(q.options) for q in self.questions]
        columns = []
        for values in (scores, scores / sizes):
            # A NaN, as of half precision that overflows, would be the largest: the model chooses no option then.
            best = [-1 if row.isnan().any() else int(row.argmax()) for row in values.split(counts)]
            columns.append(
                torch.tensor([float(b == q.gold) for b, q in zip(best, self.questions, strict=True)]).double()
            )
        return QuestionAccuracy(*columns)


def _is_greedy(
    model: Model, answers: Sequence[TokenizedAnswer], edits: Edits, batch: int = 32
) -> Float[Tensor, " question"]:
    """1 where each token of the answer is the likeliest."""
    correct = torch.zeros(len(answers), dtype=torch.float64)
    for i, logits in answer_logits(model, answers, edits, batch=batch):
        correct[i] = float(torch.equal(logits.argmax(-1).cpu(), answers[i].ids[answers[i].prompt :]))
    return correct
