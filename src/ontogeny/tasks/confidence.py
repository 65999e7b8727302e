"""Confidence of a model: entropy and top probability of the next token in texts, and probabilities of right and wrong answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.data.examples import Answer
from ontogeny.models.forward import forward_padded
from ontogeny.models.model import Model, next_token_logits
from ontogeny.neurons.last_layer_cache import entropy_of_logits
from ontogeny.neurons.mean_ablation import first_tokens
from ontogeny.steering.log_likelihood import log_likelihoods, token_log_likelihoods, tokenize_answers


@dataclass(frozen=True, eq=False)
class AnswerProbabilities:
    """Probabilities that a model gives the right (0) and the wrong (1) answer of each question."""

    shares: Float[Tensor, "question 2"]

    @property
    def confidence(self) -> Float[Tensor, " question"]:
        return self.shares.amax(1)

    @property
    def hit(self) -> Bool[Tensor, " question"]:
        return self.shares[:, 0] >= self.shares[:, 1]


@torch.no_grad()
def next_token_certainty(
    model: Model, texts: Sequence[str], *, tokens: int = 128, batch: int = 16
) -> tuple[Float[Tensor, " text"], Float[Tensor, " text"]]:
    """Entropy (nats) and top probability of the next token, means over the first `tokens` of each text."""
    ids = first_tokens(model, texts, tokens)
    certainty = torch.empty(2, len(ids), dtype=torch.float64)
    for rows, output in forward_padded(model, ids, batch=batch, body=True):
        for row, i in enumerate(rows):
            logits = next_token_logits(model, output.last_hidden_state[row, : len(ids[i])]).float()
            certainty[0, i] = entropy_of_logits(logits).double().mean()
            certainty[1, i] = logits.softmax(-1).amax(-1).double().mean()
    return certainty[0], certainty[1]


def answer_pairs(questions: Sequence[Answer]) -> list[tuple[str, str]]:
    """Each prompt with its right, then its wrong answer."""
    return [(q.prompt, answer) for q in questions for answer in (q.right, q.wrong)]


def answer_probabilities(model: Model, questions: Sequence[Answer]) -> AnswerProbabilities:
    """Softmax of the log-likelihoods of the two answers."""
    answers = tokenize_answers(model, answer_pairs(questions))
    return AnswerProbabilities(log_likelihoods(token_log_likelihoods(model, answers, batch=64)).view(-1, 2).softmax(1))
