"""Questions asked of a model: which answer it finds likelier, plainly, behind worked examples, and under edits."""

import random
from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.examples import Answer
from ontogeny.models.model import Model
from ontogeny.steering.log_likelihood import log_likelihoods, token_log_likelihoods, tokenize_answers
from ontogeny.steering.steer import Edits

TOO_SHORT = "no worked example fits into the context beside a question"


def answered(
    model: Model, prompts: Sequence[str], questions: Sequence[Answer], edits: Edits = ()
) -> Float[Tensor, " question"]:
    """1 where the right answer is likelier than the wrong one after the prompt, ½ for a tie."""
    pairs = [(prompt, answer) for prompt, q in zip(prompts, questions, strict=True) for answer in (q.right, q.wrong)]
    scores = log_likelihoods(token_log_likelihoods(model, tokenize_answers(model, pairs), edits))
    right, wrong = scores[::2], scores[1::2]
    return ((right > wrong).double() + (right >= wrong).double()) / 2


def worked_examples(
    questions: Sequence[Answer], groups: Int[Tensor, " question"], *, shots: int, seed: int
) -> list[list[int]]:
    """For each question the numbers of its worked examples, all of other groups; the same for all stages."""
    generator = random.Random(seed)
    member = groups.tolist()
    chosen = []
    for own in member:
        others = [i for i, group in enumerate(member) if group != own]
        chosen.append(generator.sample(others, min(shots, len(others))))
    return chosen


def prompts_with_examples(
    model: Model, questions: Sequence[Answer], examples: Sequence[Sequence[int]], side: str
) -> list[str]:
    """Prompts behind their examples, as many as fit beside every question; empty if none does.

    Args:
        side: Answer of the examples, right or wrong.
    """
    for shots in range(max(map(len, examples)), 0, -1):
        prompts = [
            "".join(f"{questions[i].prompt}{getattr(questions[i], side)}\n" for i in chosen[:shots]) + question.prompt
            for question, chosen in zip(questions, examples, strict=True)
        ]
        pairs = [(p, a) for p, q in zip(prompts, questions, strict=True) for a in (q.right, q.wrong)]
        if max(len(answer.ids) for answer in tokenize_answers(model, pairs, check_context=False)) <= model.context:
            return prompts
    return []
