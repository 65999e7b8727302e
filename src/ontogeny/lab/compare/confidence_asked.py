"""How sure a model is: of the next token of neutral texts, and of its answers to questions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.concept import Answer
from ontogeny.errors import BadInput
from ontogeny.lab.answers import answers_of, sums, token_scores
from ontogeny.lab.entropy_neurons_effect import rows_of
from ontogeny.lab.entropy_neurons_ends import entropy
from ontogeny.model import Model, vocabulary


@dataclass(frozen=True)
class Question:
    """A prompt and its possible answers."""

    prompt: str
    options: tuple[str, ...]
    right: int
    """Which of them."""
    group: str

    def __post_init__(self) -> None:
        if len(set(self.options)) < 2 or not 0 <= self.right < len(self.options):
            raise BadInput(
                f"a question needs two different answers and one that is right: {self.prompt[:60]!r} has {self.options}. Correct it."
            )


def questions_of(answers: Sequence[Answer | Question]) -> list[Question]:
    """The answers of a concept, right and wrong, as questions."""
    return [a if isinstance(a, Question) else Question(a.prompt, (a.right, a.wrong), 0, a.group) for a in answers]


@dataclass(frozen=True, eq=False)
class Certainty:
    """Of the next token; one number a text, mean over its tokens."""

    entropy: Float[Tensor, " text"]
    """Nats."""
    top: Float[Tensor, " text"]
    """Probability of the likeliest token."""


@torch.no_grad()
def certainty(model: Model, texts: Sequence[str], *, tokens: int = 128, batch: int = 16) -> Certainty:
    """On the first `tokens` of each text."""
    rows = rows_of(model, texts, tokens)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found = torch.empty(2, len(rows), dtype=torch.float64)
    for start in range(0, len(order), batch):
        mine = order[start : start + batch]
        ids = torch.nn.utils.rnn.pad_sequence([rows[i] for i in mine], batch_first=True).to(model.device)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(rows[i]) for i in mine], batch_first=True)
        normed = model.body(input_ids=ids, attention_mask=mask.to(ids.device), use_cache=False).last_hidden_state
        for row, i in enumerate(mine):
            scores = vocabulary(model, normed[row, : len(rows[i])]).float()
            found[0, i] = entropy(scores).double().mean()
            found[1, i] = scores.softmax(-1).amax(-1).double().mean()
    return Certainty(found[0], found[1])


@dataclass(frozen=True, eq=False)
class Answered:
    """Questions of one number of options, and how a model shares its belief among them."""

    shares: Float[Tensor, "question option"]
    right: Int[Tensor, " question"]

    @property
    def confidence(self) -> Float[Tensor, " question"]:
        return self.shares.amax(1)

    @property
    def hit(self) -> Bool[Tensor, " question"]:
        return self.shares.argmax(1) == self.right


def answered(model: Model, questions: Sequence[Question]) -> Answered:
    """Softmax of the options' log-likelihoods, each as a whole.

    Raises:
        BadInput: no questions, or questions with different numbers of options.
    """
    if len({len(q.options) for q in questions}) != 1:
        raise BadInput(
            f"{len(questions)} questions have {sorted({len(q.options) for q in questions})} options; calibration needs one number of "
            "them for all. Ask them apart."
        )
    pairs = [(q.prompt, option) for q in questions for option in q.options]
    scores = sums(token_scores(model, answers_of(model, pairs), batch=64)).view(len(questions), -1)
    return Answered(scores.softmax(1), torch.tensor([q.right for q in questions]))
