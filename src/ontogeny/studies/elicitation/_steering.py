"""Steering as a way of eliciting: a vector is added from the last token of a question on, and the answers are compared as before.

Two vectors are tried, both learned on one half of the groups: the difference that worked examples make to the state at the last token of a
question (function vectors, arXiv:2310.15213), and the one between right and wrong statements, along which the stream is read. Vector, layer
and strength are the best on that half, the plain answers among the choices; the score is that of the other half.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.activations import activations_at_token
from ontogeny.data.examples import Answer
from ontogeny.direction import random_unit_vector
from ontogeny.interventions import Add
from ontogeny.models.model import Model
from ontogeny.sites import Site
from ontogeny.steering.log_likelihood import tokenize_answers
from ontogeny.steering.steer import Edit
from ontogeny.studies.elicitation._asking import answered
from ontogeny.studies.elicitation._reading import FOLDS, halves, statement_differences
from ontogeny.studies.elicitation._settings import ElicitationSettings

_DEPTHS = (0.5, 0.75)
"""Depths, as shares of the blocks, at which vectors are added."""
_NO_EDIT = "none"


@dataclass(frozen=True, eq=False)
class SteeredAnswers:
    """Right answers under steering."""

    hits: Float[Tensor, " question"]
    null: Float[Tensor, "draw question"]
    """With random vectors as long in their place, chosen in the same way."""
    chosen: tuple[str, ...]
    """Vector, site and strength of each half, or `none`."""


def steered(
    model: Model,
    questions: Sequence[Answer],
    groups: Int[Tensor, " question"],
    behind_examples: Sequence[str],
    plain: Float[Tensor, " question"],
    settings: ElicitationSettings,
) -> SteeredAnswers:
    """Right answers under the vectors that are best on the other half of the groups.

    Args:
        behind_examples: The questions behind worked examples; empty if none fits, and then their vector is left out.
        plain: Right answers without an edit.
    """
    sites = [Site("resid", layer) for layer in sorted({max(1, round(share * model.layers)) for share in _DEPTHS})]
    differences = {"right less wrong": statement_differences(model, questions, sites)}
    if behind_examples:
        prompts = [q.prompt for q in questions]
        differences["worked examples"] = _last_states(model, behind_examples, questions, sites) - _last_states(
            model, prompts, questions, sites
        )
    hits = torch.empty(len(questions), dtype=torch.float64)
    null = torch.empty(settings.steering_draws, len(questions), dtype=torch.float64)
    fold, chosen = halves(groups, settings.seed), []
    for number in range(FOLDS):
        test, train = fold == number, fold != number
        vectors = {
            (name, site): difference[place, train].mean(0).float()
            for name, difference in differences.items()
            for place, site in enumerate(sites)
        }
        hits[test], choice = _best_on_train(model, questions, vectors, plain, train, test, settings.strengths)
        chosen.append(choice)
        for draw in range(settings.steering_draws):
            random = {
                key: vector.norm()
                * random_unit_vector(len(vector), 1000 * settings.seed + 100 * draw + 10 * number + i)
                for i, (key, vector) in enumerate(vectors.items())
            }
            null[draw, test] = _best_on_train(model, questions, random, plain, train, test, settings.strengths)[0]
    return SteeredAnswers(hits, null, tuple(chosen))


def steering_passes(settings: ElicitationSettings) -> int:
    """Passes of all questions through the model."""
    return (1 + settings.steering_draws) * (1 + 2 * len(_DEPTHS) * len(settings.strengths))


def _best_on_train(
    model: Model,
    questions: Sequence[Answer],
    vectors: dict[tuple[str, Site], Float[Tensor, " d"]],
    plain: Float[Tensor, " question"],
    train: Tensor,
    test: Tensor,
    strengths: Sequence[float],
) -> tuple[Float[Tensor, " question"], str]:
    """Right answers to the test questions with the edit that has the most on the train questions, and its name."""

    def ask(edit: Edit, mask: Tensor) -> Tensor:
        part = [q for q, inside in zip(questions, mask.tolist(), strict=True) if inside]
        return answered(model, [q.prompt for q in part], part, [edit])

    best, score, name = None, float(plain[train].mean()), _NO_EDIT
    for (kind, site), vector in vectors.items():
        for strength in strengths:
            edit = Edit(site, Add(vector, strength), "last")
            share = float(ask(edit, train).mean())
            if share > score:
                best, score, name = edit, share, f"{kind} × {strength:g} at {site}"
    return (plain[test] if best is None else ask(best, test)), name


def _last_states(
    model: Model, prompts: Sequence[str], questions: Sequence[Answer], sites: Sequence[Site]
) -> Float[Tensor, "site question d"]:
    """States at the last token of each prompt, tokenized as before its right answer."""
    answers = tokenize_answers(model, [(prompt, q.right) for prompt, q in zip(prompts, questions, strict=True)])
    rows = [answer.ids[: answer.prompt] for answer in answers]
    return activations_at_token(model, rows, [-1] * len(rows), sites).double()
