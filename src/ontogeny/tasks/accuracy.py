"""What steering costs elsewhere: option-likelihood tasks, right by the whole option and right by its length, with intervals.

`accuracy` takes the option of the highest log-probability, `accuracy_normalised` divides by the option's length in bytes, as
lm-evaluation-harness does (arXiv:2405.14782). Of one option (LAMBADA) it is right where each token is the likeliest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.steering.log_likelihood import TokenizedAnswer, log_likelihoods, token_log_likelihoods, tokenize_answers
from ontogeny.steering.steer import Edits, edits_for_prompts, steer
from ontogeny.tasks.datasets import MultipleChoiceQuestion


@dataclass(frozen=True, eq=False)
class QuestionAccuracy:
    """One number a question."""

    plain: Float[Tensor, " question"]
    """1 where the likeliest option is the right one."""
    normalised: Float[Tensor, " question"]
    """The same after division by the bytes of the options."""


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
            made = _tokenize_question(model, question)
            left_out += made is None
            if made is not None:
                kept.append(question)
                answers += made
        if not kept:
            raise BadInput(f"no question of {name} fits the context of {model.context} tokens. Choose another task.")
        return cls(name, tuple(kept), tuple(answers), left_out)

    def answered(self, model: Model, edits: Edits = ()) -> QuestionAccuracy:
        """Which questions the model gets right under the edits."""
        if all(len(q.options) == 1 for q in self.questions):
            right = _is_greedy(model, self.answers, edits)
            return QuestionAccuracy(right, right)
        scores = log_likelihoods(token_log_likelihoods(model, self.answers, edits))
        sizes = torch.tensor([len(option.encode()) for q in self.questions for option in q.options]).double()
        counts = [len(q.options) for q in self.questions]
        columns = []
        for values in (scores, scores / sizes):
            best = [int(row.argmax()) for row in values.split(counts)]
            columns.append(
                torch.tensor([float(b == q.gold) for b, q in zip(best, self.questions, strict=True)]).double()
            )
        return QuestionAccuracy(*columns)


def _tokenize_question(model: Model, question: MultipleChoiceQuestion) -> list[TokenizedAnswer] | None:
    prompts = question.prompts or (question.prompt,) * len(question.options)
    try:
        return tokenize_answers(model, list(zip(prompts, question.options, strict=True)))
    except BadInput as fault:
        if "the context" in str(fault):
            return None
        raise


@torch.no_grad()
def _is_greedy(
    model: Model, answers: Sequence[TokenizedAnswer], edits: Edits, batch: int = 32
) -> Float[Tensor, " question"]:
    """1 where each token of the answer is the likeliest."""
    right = torch.zeros(len(answers), dtype=torch.float64)
    order = sorted(range(len(answers)), key=lambda i: len(answers[i].ids))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        ids = torch.nn.utils.rnn.pad_sequence([answers[i].ids for i in rows], batch_first=True)
        lengths = torch.tensor([len(answers[i].ids) for i in rows])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        with steer(model, edits_for_prompts(edits, rows), prompts=[answers[i].prompt for i in rows]):
            told = model.network(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
        likeliest = told.logits.argmax(-1).cpu()
        for row, i in enumerate(rows):
            one = answers[i]
            said = likeliest[row, one.prompt - 1 : len(one.ids) - 1]
            right[i] = float(torch.equal(said, one.ids[one.prompt :]))
    return right
