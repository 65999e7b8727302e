"""Sampled continuations side by side: unsteered, steered, and steered along random directions of equal norm."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ontogeny.data.templates import Template
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
    """Nats per token of the text under the unsteered model; NaN for an empty text."""


def steering_samples(
    model: Model,
    prompts: Sequence[str],
    arms: Sequence[tuple[str, float | None, Edits]],
    how: DecodingConfig | None = None,
    *,
    template: Template = False,
) -> list[SteeringSample]:
    """Continue each prompt, in its template, under each arm (name, alpha, edits), in the order of the prompts."""
    per_arm = [_samples(model, prompts, arm, how, template) for arm in arms]
    return [sample for row in zip(*per_arm, strict=True) for part in row for sample in part]


def conditions(
    edit: Edit, alphas: Sequence[float], *, controls: int = 1
) -> Iterator[tuple[str, float | None, list[Edit]]]:
    """Arms: unsteered, then for each alpha the edit and its controls; an edit other than `Add` has no alpha and is one arm."""
    yield "unsteered", None, []
    for alpha in alphas if isinstance(edit.what, Add) else [None]:
        scaled = edit if alpha is None else Edit(edit.site, Add(edit.what.shift, alpha), edit.where)  # type: ignore[attr-defined]
        yield "steered", alpha, [scaled]
        for seed in range(controls if not scaled.what.is_noop else 0):
            yield f"control {seed}", alpha, [scaled.null(seed)]


def _samples(
    model: Model,
    prompts: Sequence[str],
    arm: tuple[str, float | None, Edits],
    how: DecodingConfig | None,
    template: Template,
) -> list[list[SteeringSample]]:
    name, alpha, edits = arm
    continuations = generate(model, prompts, as_edits(edits), how, template=template)
    flat = [c for row in continuations for c in row if len(c.ids)]
    answers = [TokenizedAnswer(torch.cat([c.prompt_ids, c.ids]), len(c.prompt_ids)) for c in flat]
    scores = iter(token_log_likelihoods(model, answers))

    def sample(c: Continuation) -> SteeringSample:
        surprise = -float(next(scores).double().mean()) if len(c.ids) else math.nan
        return SteeringSample(c.prompt, name, alpha, c.text, len(c.ids), surprise)

    return [[sample(c) for c in row] for row in continuations]
