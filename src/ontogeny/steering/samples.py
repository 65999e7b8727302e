"""Samples side by side: unsteered, steered, and steered with a control that moves as far and knows nothing."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ontogeny.interventions import Add
from ontogeny.models.model import Model
from ontogeny.steering.generate import Continuation, DecodingConfig, generate
from ontogeny.steering.log_likelihood import TokenizedAnswer, token_log_likelihoods
from ontogeny.steering.steer import Edit, Edits, as_edits


@dataclass(frozen=True)
class SteeringSample:
    """One continuation of one prompt."""

    prompt: str
    arm: str
    """`unsteered`, `steered` or `control 0`, `control 1`, …"""
    alpha: float | None
    text: str
    tokens: int
    surprise: float
    """Nats per token of this text under the unsteered model: what steering did to its language. NaN where nothing was said."""


def steering_samples(
    model: Model,
    prompts: Sequence[str],
    arms: Sequence[tuple[str, float | None, Edits]],
    how: DecodingConfig | None = None,
) -> list[SteeringSample]:
    """Each prompt under each arm (a name, its alpha, its edits), in the order of the prompts."""
    made = [_samples(model, prompts, arm, how) for arm in arms]
    return [sample for row in zip(*made, strict=True) for part in row for sample in part]


def conditions(
    edit: Edit, alphas: Sequence[float], *, controls: int = 1
) -> Iterator[tuple[str, float | None, list[Edit]]]:
    """Unsteered, then for each alpha the vector and its controls. An edit that is no addition has no alpha: it is one arm."""
    yield "unsteered", None, []
    for alpha in alphas if isinstance(edit.what, Add) else [None]:
        scaled = edit if alpha is None else Edit(edit.site, Add(edit.what.shift, alpha), edit.where)  # type: ignore[attr-defined]
        yield "steered", alpha, [scaled]
        for seed in range(controls if not scaled.what.is_noop else 0):
            yield f"control {seed}", alpha, [scaled.null(seed)]


def _samples(
    model: Model, prompts: Sequence[str], arm: tuple[str, float | None, Edits], how: DecodingConfig | None
) -> list[list[SteeringSample]]:
    name, alpha, edits = arm
    said = generate(model, prompts, as_edits(edits), how)
    flat = [one for row in said for one in row]
    spoken = [i for i, one in enumerate(flat) if len(one.ids)]
    scores = token_log_likelihoods(model, [_answer(flat[i]) for i in spoken])
    surprise = {i: -float(score.double().mean()) for i, score in zip(spoken, scores, strict=True)}
    samples = [
        SteeringSample(one.prompt, name, alpha, one.text, len(one.ids), surprise.get(i, math.nan))
        for i, one in enumerate(flat)
    ]
    each = len(said[0])
    return [samples[i : i + each] for i in range(0, len(samples), each)]


def _answer(one: Continuation) -> TokenizedAnswer:
    return TokenizedAnswer(torch.cat([one.before, one.ids]), len(one.before))
