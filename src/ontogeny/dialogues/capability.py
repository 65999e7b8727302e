"""Capability under a mitigation: accuracy and margin on plain questions, asked after a system prompt.

Right and wrong answers are of one style, so that a rule of the system prompt which makes all plain text unlikely does not count as a loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.data.chats import Chat
from ontogeny.data.templates import Template
from ontogeny.dialogues.answers import answer_log_likelihoods
from ontogeny.dialogues.mitigations import PLAIN, Mitigation
from ontogeny.models.model import Model
from ontogeny.steering.steer import Edit


@dataclass(frozen=True)
class PlainQuestion:
    """A question with a right and a wrong answer, each with its leading space."""

    question: str
    right: str
    wrong: str


def _each(text: str) -> tuple[PlainQuestion, ...]:
    rows = (line.split("|") for line in text.strip().splitlines())
    return tuple(
        PlainQuestion(question.strip(), f" {right.strip()}", f" {wrong.strip()}") for question, right, wrong in rows
    )


PLAIN_QUESTIONS = _each("""
What is the capital of France? | Paris | Rome
What is the capital of Japan? | Tokyo | Beijing
What is the capital of Egypt? | Cairo | Athens
What is the capital of Germany? | Berlin | Vienna
How many legs does a spider have? | Eight | Six
How many days are in a week? | Seven | Nine
How many minutes are in an hour? | Sixty | Fifty
What is two plus three? | Five | Six
What is ten minus four? | Six | Five
What is three times three? | Nine | Eight
Which planet do we live on? | Earth | Mars
Which star is nearest to the Earth? | The Sun | Sirius
What is frozen water called? | Ice | Steam
What do bees make? | Honey | Milk
Which animal barks? | The dog | The cat
Which animal gives milk? | The cow | The hen
What colour is grass? | Green | Red
What colour is a ripe lemon? | Yellow | Purple
Which month comes after March? | April | June
Which day comes after Monday? | Tuesday | Friday
What is the opposite of hot? | Cold | Warm
What is the opposite of up? | Down | Left
In which season does snow fall? | Winter | Summer
With which organ do we see? | The eye | The ear
""")


def capability_margins(
    model: Model,
    system: str,
    questions: Sequence[PlainQuestion],
    template: Template,
    mitigation: Mitigation = PLAIN,
    caps: Sequence[Edit] = (),
    *,
    batch: int = 16,
) -> Float[Tensor, " question"]:
    """Log-likelihood per token of the right answer minus that of the wrong one, nats."""
    chats: list[Chat] = [(("system", system), ("user", one.question)) for one in questions]
    endings = [one.right for one in questions] + [one.wrong for one in questions]
    scores = answer_log_likelihoods(model, [*chats, *chats], endings, template, mitigation, caps, batch=batch)
    means = torch.stack([score.double().mean() for score in scores])
    return means[: len(questions)] - means[len(questions) :]
