"""Decay of attention to the system prompt over a dialogue: π(t) of every head, and its drops between and within turns (arXiv:2402.10962).

The paper sees plateaus within turns and drops between them. A drop is π, mean over heads, in the last tokens before a place minus that in
the first tokens after it; places are the beginnings of answers and, as the null, their middles.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.activations.attention_mass import attention_mass
from ontogeny.data.templates import Template
from ontogeny.dialogues.prompts import chat_prompts
from ontogeny.dialogues.self_chat import Dialogue
from ontogeny.models.model import Model


@dataclass(frozen=True, eq=False)
class AttentionDecay:
    """The attention to the system prompt in one dialogue."""

    mass: Float[Tensor, "layer head round"]
    """π at the token from which the answer of each round is predicted."""
    tokens: tuple[int, ...]
    """Tokens before the answer of each round."""
    between: float
    """Mean drop at the beginnings of answers after the first; NaN where there is none."""
    within: float
    """Mean drop in the middle of answers, the null; NaN where all are shorter than two edges."""


def attention_decay(
    model: Model, dialogues: Sequence[Dialogue], template: Template, *, edge: int = 4, batch: int = 16
) -> list[AttentionDecay]:
    """π over each dialogue, with the system prompt of its agent.

    Args:
        edge: Tokens on each side of a place that are averaged for a drop.
    """
    chats = [one.agent_chat(r, one.asked[r]) for one in dialogues for r in range(len(one.answered))]
    prompts = chat_prompts(model, chats, template)
    at_ends = attention_mass(model, [one.ids for one in prompts], [one.system for one in prompts], batch=batch)
    texts = chat_prompts(model, [one.agent_chat(len(one.answered)) for one in dialogues], template)
    whole = attention_mass(model, [one.ids for one in texts], [one.system for one in texts], batch=batch)
    decays, start = [], 0
    for one, text, mass in zip(dialogues, texts, whole, strict=True):
        own = prompts[start : start + len(one.answered)]
        ends = [part[..., -1] for part in at_ends[start : start + len(one.answered)]]
        start += len(one.answered)
        # A template that rewrites earlier turns has no common places.
        places = [len(p.ids) for p in own if torch.equal(text.ids[: len(p.ids)], p.ids)]
        middles = [p + n // 2 for p, n in zip(places, one.lengths, strict=False) if n >= 2 * edge]
        mean = mass.mean((0, 1))
        stacked = torch.stack(ends, -1) if ends else mass[..., :0]
        drops = [_mean_drop(mean, at, edge) for at in (places[1:], middles)]
        decays.append(AttentionDecay(stacked, tuple(len(p.ids) for p in own), *drops))
    return decays


def _mean_drop(mass: Float[Tensor, " token"], places: Sequence[int], edge: int) -> float:
    drops = [
        float(mass[place - edge : place].mean() - mass[place : place + edge].mean())
        for place in places
        if edge <= place <= len(mass) - edge
    ]
    return sum(drops) / len(drops) if drops else float("nan")
