"""Partner of each prompt, found by patterns in the tokens.

The best partner differs in a common place, in the narrowest span, in a frame that other prompts share. Pairs of the most common shape
come first.
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
"""Minimum prompts that share a frame for it to count as a pattern."""
_MAX_COMPARED_PROMPTS = 200
"""Maximum prompts of one length that are compared with each other, drawn at random."""
_Ids = tuple[int, ...]


@dataclass(frozen=True)
class CompletionPrompt:
    """A text to be completed."""

    text: str
    answer: str
    """Completion of a true text."""
    group: str
    object: tuple[int, int] | None = None
    """Character span of the statement's last word."""


@dataclass(frozen=True)
class _Candidate:
    partner: int
    frame: tuple[Any, ...]
    """Tokens that both prompts share, with a hole."""
    shape: tuple[int, int, int]
    """Number of tokens, first token of the hole and one past its last."""


def find_partners(
    tokenizer: Any, clean: Sequence[CompletionPrompt], corrupt: Sequence[CompletionPrompt], pairing: str, seed: int
) -> list[tuple[int, int]]:
    """Indices of clean prompts and their partners; those of the most common shape first, in a random order."""
    order = random.Random(seed)
    sides = [_by_length(tokenizer, side, order) for side in (clean, corrupt)]
    candidates: dict[int, list[_Candidate]] = defaultdict(list)
    frames: dict[tuple[Any, ...], set[int]] = defaultdict(set)
    shapes: dict[tuple[int, int, int], set[int]] = defaultdict(set)
    for length in sides[0].keys() & sides[1].keys():
        own, others = sides[0][length], sides[1][length]
        a, b = torch.tensor([ids for _, ids in own]), torch.tensor([ids for _, ids in others])
        allowed = _allowed_pairs([clean[i] for i, _ in own], [corrupt[j] for j, _ in others], pairing)
        for x, y, start, end in _differing_spans(a, b, allowed):
            i, ids = own[x]
            candidate = _Candidate(others[y][0], (*ids[:start], None, *ids[end:]), (length, start, end))
            candidates[i].append(candidate)
            frames[candidate.frame].add(i)
            shapes[candidate.shape].add(i)
    common_shape = {length: max(len(s) for k, s in shapes.items() if k[0] == length) for length, _, _ in shapes}
    used: Counter[int] = Counter()
    pairs = []
    for i in order.sample(sorted(candidates), len(candidates)):
        order.shuffle(candidates[i])
        # Patterns do not matter for one_span: its statements are paired one by one.
        best = min(
            candidates[i],
            key=lambda c: (
                pairing != "one_span" and len(frames[c.frame]) < _MIN_FRAME_PROMPTS,
                pairing != "one_span" and 2 * len(shapes[c.shape]) < common_shape[c.shape[0]],
                c.shape[2] - c.shape[1],
                -len(frames[c.frame]),
                used[c.partner],
            ),
        )
        used[best.partner] += 1
        pairs.append((i, best.partner, best.shape))
    # Pairs of one shape run together, and each of their tokens is a column of the map.
    times = Counter(shape for _, _, shape in pairs)
    return [(i, j) for i, j, _ in sorted(pairs, key=lambda pair: (-times[pair[2]], pair[2]))]


def _by_length(
    tokenizer: Any, prompts: Sequence[CompletionPrompt], order: random.Random
) -> dict[int, list[tuple[int, _Ids]]]:
    """Index and token ids of the prompts of each length."""
    rows: dict[int, list[tuple[int, _Ids]]] = defaultdict(list)
    for i, encoding in enumerate(encode_texts(tokenizer, [p.text for p in prompts], [None] * len(prompts))):
        rows[len(encoding.ids)].append((i, tuple(encoding.ids.tolist())))
    return {
        length: part if len(part) <= _MAX_COMPARED_PROMPTS else order.sample(part, _MAX_COMPARED_PROMPTS)
        for length, part in rows.items()
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
    """(row, row, first, one past the last differing token) of the allowed pairs that differ in at most half of their tokens."""
    spans = []
    head = common_prefix_length([*a.tolist(), *b.tolist()])
    for x, row in enumerate(a):
        differs = row != b
        first = differs.int().argmax(1)
        end = differs.shape[1] - differs.flip(1).int().argmax(1)
        fits = allowed[x] & differs.any(1) & (2 * (end - first) <= differs.shape[1] - head) & (end < differs.shape[1])
        spans += [(x, y, int(first[y]), int(end[y])) for y in fits.nonzero()[:, 0].tolist()]
    return spans
