"""Which prompt is whose partner: patterns are found in the tokens, not given.

Of the partners that a prompt could have, one that differs in a usual place, as narrow as there is, in a frame that other prompts share; and
of the pairs those first that most others lie like, token by token.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ontogeny.data.tokenization import encode_texts
from ontogeny.patching.activation_patching import common_prefix_length

_MIN_FRAME_PROMPTS = 3
"""Prompts that share a frame, at least, for it to count as a pattern."""
_MAX_COMPARED_PROMPTS = 200
"""Prompts of one length that are compared with each other, drawn where there are more."""


@dataclass(frozen=True)
class CompletionPrompt:
    """A text that a model goes on with."""

    text: str
    answer: str
    """What a true text goes on with."""
    group: str
    object: tuple[int, int] | None = None
    """Characters of the statement's last word."""


def find_partners(
    tokenizer: Any, clean: Sequence[CompletionPrompt], corrupt: Sequence[CompletionPrompt], pairing: str, seed: int
) -> list[tuple[int, int]]:
    """For each clean prompt its partner; those of the most common shape first, in a drawn order."""
    order = random.Random(seed)
    sides = [_by_length(_ids(tokenizer, side), order) for side in (clean, corrupt)]
    candidates: dict[int, list[_Candidate]] = defaultdict(list)
    frames: dict[tuple[Any, ...], set[int]] = defaultdict(set)
    shapes: dict[tuple[int, int, int], set[int]] = defaultdict(set)
    for length in sides[0].keys() & sides[1].keys():
        ours, theirs = sides[0][length], sides[1][length]
        a, b = torch.tensor([ids for _, ids in ours]), torch.tensor([ids for _, ids in theirs])
        allowed = _allowed_pairs([clean[i] for i, _ in ours], [corrupt[j] for j, _ in theirs], pairing)
        for x, y, start, end in _differing_spans(a, b, allowed):
            i = ours[x][0]
            one = _Candidate(theirs[y][0], (*ours[x][1][:start], None, *ours[x][1][end:]), (length, start, end))
            candidates[i].append(one)
            frames[one.frame].add(i)
            shapes[one.shape].add(i)
    common_shape = {length: max(len(s) for k, s in shapes.items() if k[0] == length) for length, _, _ in shapes}
    used: Counter[int] = Counter()
    pairs = []
    for i in order.sample(sorted(candidates), len(candidates)):
        order.shuffle(candidates[i])
        # A frame that is a pattern, not the chance likeness of two prompts; at a usual place; there the narrowest. Twins are no pattern.
        found = min(
            candidates[i],
            key=lambda c: (
                pairing != "one_span" and len(frames[c.frame]) < _MIN_FRAME_PROMPTS,
                pairing != "one_span" and 2 * len(shapes[c.shape]) < common_shape[c.shape[0]],
                c.shape[2] - c.shape[1],
                -len(frames[c.frame]),
                used[c.partner],
            ),
        )
        used[found.partner] += 1
        pairs.append((i, found.partner, found.shape))
    # Pairs of one shape run together, and each of their tokens is a column of the map.
    times = Counter(shape for _, _, shape in pairs)
    return [(i, j) for i, j, _ in sorted(pairs, key=lambda pair: (-times[pair[2]], pair[2]))]


@dataclass(frozen=True)
class _Candidate:
    partner: int
    frame: tuple[Any, ...]
    """What both prompts share, with a hole."""
    shape: tuple[int, int, int]
    """Tokens of the prompt, first and one past the last of the hole."""


def _ids(tokenizer: Any, prompts: Sequence[CompletionPrompt]) -> list[tuple[int, ...]]:
    made = encode_texts(tokenizer, [p.text for p in prompts], [None] * len(prompts))
    return [tuple(one.ids.tolist()) for one in made]


def _by_length(rows: Sequence[tuple[int, ...]], order: random.Random) -> dict[int, list[tuple[int, tuple[int, ...]]]]:
    found: dict[int, list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    for i, row in enumerate(rows):
        found[len(row)].append((i, row))
    return {
        length: part if len(part) <= _MAX_COMPARED_PROMPTS else order.sample(part, _MAX_COMPARED_PROMPTS)
        for length, part in found.items()
    }


def _allowed_pairs(
    clean: Sequence[CompletionPrompt], corrupt: Sequence[CompletionPrompt], pairing: str
) -> Bool[Tensor, "clean corrupt"]:
    def word(prompt: CompletionPrompt) -> str | None:
        return None if prompt.object is None else prompt.text[slice(*prompt.object)]

    if pairing == "one_span":
        return torch.ones(len(clean), len(corrupt), dtype=torch.bool)
    if pairing == "same_object":
        return torch.tensor([[word(a) is not None and word(a) == word(b) for b in corrupt] for a in clean])
    return torch.tensor([[a.answer != b.answer for b in corrupt] for a in clean])


def _differing_spans(
    a: Int[Tensor, "clean token"], b: Int[Tensor, "corrupt token"], allowed: Bool[Tensor, "clean corrupt"]
) -> list[tuple[int, int, int, int]]:
    """(row, row, first, one past the last token that differs) of each allowed pair of rows that differ in at most half of them."""
    found = []
    head = common_prefix_length([*a.tolist(), *b.tolist()])
    for x, row in enumerate(a):
        differs = row != b
        first = differs.int().argmax(1)
        end = differs.shape[1] - differs.flip(1).int().argmax(1)
        fits = allowed[x] & differs.any(1) & (2 * (end - first) <= differs.shape[1] - head) & (end < differs.shape[1])
        found += [(x, y, int(first[y]), int(end[y])) for y in fits.nonzero()[:, 0].tolist()]
    return found
