"""Log-likelihoods of given answers: the log-probability of each answer token, steered or not, with exact token counts.

Prompt and answer are tokenised together and padded on the right, where no token of a causal model sees the padding. A score is the sum or
the mean over the answer's own tokens, never over the length of a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.templates import Template, template_of
from ontogeny.data.tokenization import encode_answers
from ontogeny.errors import BadInput
from ontogeny.models.model import Model
from ontogeny.steering.steer import Edits, check_can_generate, forward_steered


@dataclass(frozen=True, eq=False)
class TokenizedAnswer:
    """An answer after its prompt, as tokens."""

    ids: Int[Tensor, " token"]
    """Prompt and answer."""
    prompt: int
    """Tokens of the prompt; the answer follows."""

    @property
    def tokens(self) -> int:
        """Tokens of the answer."""
        return len(self.ids) - self.prompt


def tokenize_answers(
    model: Model, pairs: Sequence[tuple[str, str]], *, check_context: bool = True, template: Template = False
) -> list[TokenizedAnswer]:
    """Pairs of a prompt and its answer as tokens.

    Args:
        template: In which each prompt is a user's turn; a model without its own is asked bare.

    Raises:
        BadInput: an answer without tokens, an empty prompt, or more tokens than the context holds.
    """
    answers = []
    rows = encode_answers(model.tokenizer, pairs, template=template_of(model.tokenizer, template))
    for (prompt, _), (ids, _, start) in zip(pairs, rows, strict=True):
        if check_context and len(ids) > model.context:
            raise BadInput(
                f"a prompt and its answer must have at most {model.context} tokens, the context, got {len(ids)}: shorten "
                f"{prompt[:60]!r}."
            )
        answers.append(TokenizedAnswer(ids, start))
    return answers


def answer_logits(
    model: Model, answers: Sequence[TokenizedAnswer], edits: Edits, *, batch: int
) -> Iterator[tuple[int, Float[Tensor, "token vocab"]]]:
    """For each answer, in any order, its index and the logits of its tokens, each of which is predicted one position earlier."""
    prompts = [a.prompt for a in answers]
    for rows, output in forward_steered(model, [a.ids for a in answers], edits, prompts=prompts, batch=batch):
        for row, i in enumerate(rows):
            yield i, output.logits[row, prompts[i] - 1 : len(answers[i].ids) - 1]


def token_log_likelihoods(
    model: Model, answers: Sequence[TokenizedAnswer], edits: Edits = (), *, batch: int = 32
) -> list[Float[Tensor, " token"]]:
    """The log-probability of each token of each answer, in nats. For an edit, the answer's tokens are `generated`."""
    check_can_generate(model)
    scores: dict[int, Tensor] = {}
    for i, logits in answer_logits(model, answers, edits, batch=batch):
        answer = answers[i]
        scores[i] = logits.float().log_softmax(-1).cpu().gather(1, answer.ids[answer.prompt :, None])[:, 0]
    return [scores[i] for i in range(len(answers))]


def log_likelihoods(scores: Sequence[Float[Tensor, " token"]]) -> Float[Tensor, " answer"]:
    """Log-probability of each whole answer, nats."""
    return torch.stack([score.double().sum() for score in scores])


def mean_log_likelihoods(scores: Sequence[Float[Tensor, " token"]]) -> Float[Tensor, " answer"]:
    """Mean over an answer's own tokens, nats per token."""
    return torch.stack([score.double().mean() for score in scores])
