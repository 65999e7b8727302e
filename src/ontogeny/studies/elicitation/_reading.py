"""The right answer read from the stream: a direction between right and wrong statements, cross-fitted over two halves of the groups."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.activations import activations_at_token
from ontogeny.data.examples import Answer
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.steering.log_likelihood import tokenize_answers
from ontogeny.studies.elicitation._settings import ElicitationSettings

FOLDS = 2


def readable(
    model: Model, questions: Sequence[Answer], groups: Int[Tensor, " question"], settings: ElicitationSettings
) -> tuple[Float[Tensor, " question"], Float[Tensor, " draw"], list[str]]:
    """Right choices of a direction in the stream, cross-fitted over two halves of the groups; the mean under shuffled labels; the layers.

    The direction is the mean difference of the states at the full stop behind the right and the wrong answer, where the statement is
    complete; its layer is chosen inside the half that it is learned on.
    """
    sites = [Site("resid", layer) for layer in range(1, model.layers + 1)]
    differences = statement_differences(model, questions, sites)
    fold = halves(groups, settings.seed)
    hits, layers = _cross_fitted(differences, groups, fold, settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    null = []
    for _ in range(settings.draws):
        sign = (2.0 * torch.randint(2, (int(groups.max()) + 1,), generator=generator) - 1).double()[groups]
        null.append(_cross_fitted(differences * sign[None, :, None], groups, fold, settings.seed)[0].mean())
    return hits, torch.stack(null), [str(sites[layer]) for layer in dict.fromkeys(layers)]


def statement_differences(
    model: Model, questions: Sequence[Answer], sites: Sequence[Site]
) -> Float[Tensor, "site question d"]:
    """States at the full stop behind the right answer less those behind the wrong one."""
    closing = _full_stop(model, questions[0])
    pairs = [(q.prompt, f"{answer}{closing}") for q in questions for answer in (q.right, q.wrong)]
    rows = [answer.ids for answer in tokenize_answers(model, pairs)]
    states = activations_at_token(model, rows, [-1] * len(rows), sites).double()
    return states[:, ::2] - states[:, 1::2]


def halves(groups: Int[Tensor, " question"], seed: int) -> Int[Tensor, " question"]:
    """The fold of each question: two halves of the groups."""
    order = torch.randperm(int(groups.max()) + 1, generator=torch.Generator().manual_seed(seed))
    return (order % FOLDS)[groups]


def _full_stop(model: Model, question: Answer) -> str:
    """A full stop as the tokenizer knows it: tokenizers of whole words need a space before it."""
    (answer,) = tokenize_answers(model, [(question.prompt, f"{question.right}.")], check_context=False)
    return " ." if model.tokenizer.unk_token_id in answer.ids.tolist() else "."


def _cross_fitted(
    differences: Float[Tensor, "layer question d"],
    groups: Int[Tensor, " question"],
    fold: Int[Tensor, " question"],
    seed: int,
) -> tuple[Float[Tensor, " question"], list[int]]:
    hits, layers = torch.empty(len(groups), dtype=torch.float64), []
    inner = halves(groups, seed + 1)
    for number in range(FOLDS):
        test, train = fold == number, fold != number
        scores = torch.zeros(len(differences), dtype=torch.float64)
        for half in range(FOLDS):
            fitted, held = train & (inner != half), train & (inner == half)
            if fitted.any() and held.any():
                scores += _right(differences, fitted, held).sum(1)
        layer = int(scores.argmax())
        layers.append(layer)
        hits[test] = _right(differences[layer : layer + 1], train, test)[0]
    return hits, layers


def _right(
    differences: Float[Tensor, "layer question d"], fitted: Tensor, held: Tensor
) -> Float[Tensor, "layer question"]:
    """1 where a held-out difference points along the mean of the fitted ones, ½ where it is orthogonal."""
    along = (differences[:, held] * differences[:, fitted].mean(1, keepdim=True)).sum(-1)
    return ((along > 0).double() + (along >= 0).double()) / 2
