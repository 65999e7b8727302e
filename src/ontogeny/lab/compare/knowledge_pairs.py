"""Pairs of prompts that align token by token and differ in one place, mined from any labelled statements (arXiv:2504.02904 section 3).

Three pairings. `recall`: two questions of one pattern about different subjects, each answered by its own last word. `same_object`, the
paper's: a true and a false statement of the same last word and different subjects, both asked whether they are true. `one_span`: a true
and a false statement that differ in one span of as many tokens. Patterns are found, not given: of the partners that a prompt could
have, one that differs in a usual place, as narrow as there is, in a frame that other prompts share; and of the pairs those that most
others lie like, token by token.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ontogeny.concept import Concept
from ontogeny.encoding import encode_all
from ontogeny.errors import BadInput, unknown
from ontogeny.lab.patching import common
from ontogeny.position import Encoding, touching

Pairing = Literal["auto", "recall", "same_object", "one_span"]
PATTERN = 3
"""Prompts that share a frame, at least, for it to count as a pattern."""
MOST = 200
"""Prompts of one length that are compared with each other, drawn where there are more."""


@dataclass(frozen=True)
class Asking:
    """How a statement is asked whether it is true."""

    question: str = " This statement is:"
    right: str = " TRUE"
    wrong: str = " FALSE"
    shots: int = 4
    """Statements with their answers in front, in one order for all prompts: what they share is computed once."""


@dataclass(frozen=True)
class Prompt:
    """A text that a model goes on with."""

    text: str
    answer: str
    """What a true text goes on with."""
    group: str
    object: tuple[int, int] | None = None
    """Characters of the statement's last word."""


@dataclass(frozen=True)
class Drawn:
    """Two prompts in words: what aligns under one tokenizer may be tried under another."""

    clean: Prompt
    corrupt: Prompt
    right: str
    wrong: str


@dataclass(frozen=True)
class Pair:
    """Two prompts of one length in tokens."""

    drawn: Drawn
    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    right: int
    """First token of the clean prompt's answer that is not the corrupt one's."""
    wrong: int
    roles: tuple[str, ...]
    """What each token is: before, subject, subject_last, between, object, after, last."""


@dataclass(frozen=True)
class Pairs:
    """What was mined from one concept."""

    concept: str
    pairing: str
    pairs: tuple[Pair, ...]
    tried: int
    """Prompts that could have had a partner."""
    dropped: Mapping[str, int]
    """Why pairs that were found were left out."""

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def note(self) -> str:
        left = "".join(f"; {count} left out: {why}" for why, count in self.dropped.items())
        return f"pairing {self.pairing}: {len(self.pairs)} pairs of {self.tried} prompts{left}"


def mined(
    concept: Concept,
    tokenizer: Any,
    *,
    pairing: Pairing = "auto",
    asking: Asking | None = None,
    most: int | None = 50,
    seed: int = 0,
) -> Pairs:
    """Up to `most` pairs of a concept's answers or statements; with `auto` the first pairing that gives any.

    Raises:
        BadInput: no pairs align, with how many prompts were tried and why.
    """
    if pairing not in get_args(Pairing):
        raise unknown("pairing", pairing, get_args(Pairing))
    orders = get_args(Pairing)[1:] if pairing == "auto" else (pairing,)
    said = []
    for one in orders:
        found = _mined(concept, tokenizer, one, asking or Asking(), most, seed)
        if len(found):
            return found
        why = ", ".join(found.dropped) or "no two of one length differ as they should"
        said.append(f"{one}: {found.tried} prompts, {why}")
    raise BadInput(
        f"no pairs of {concept.name} align ({'; '.join(said)}). Give more statements of one pattern, or prompts with answers."
    )


def _mined(concept: Concept, tokenizer: Any, pairing: str, asking: Asking, most: int | None, seed: int) -> Pairs:
    clean, corrupt = _prompts(concept, pairing, asking, seed)
    chosen = _partners(tokenizer, clean, corrupt, pairing, seed) if clean and corrupt else []
    dropped: Counter[str] = Counter()
    pairs: list[Pair] = []
    for i, j in chosen:
        if most is not None and len(pairs) == most:
            break
        answers = (clean[i].answer, corrupt[j].answer) if pairing == "recall" else (asking.right, asking.wrong)
        made = aligned(tokenizer, Drawn(clean[i], corrupt[j], *answers), pairing)
        if isinstance(made, str):
            dropped[made] += 1
        else:
            pairs.append(made)
    return Pairs(
        concept.name, pairing, tuple(pairs), len(clean) if clean is corrupt else len(clean) + len(corrupt), dropped
    )


def realigned(found: Pairs, tokenizer: Any) -> Pairs:
    """The same pairs under another tokenizer: those that align there, too."""
    made = [aligned(tokenizer, pair.drawn, found.pairing) for pair in found.pairs]
    return Pairs(
        found.concept,
        found.pairing,
        tuple(m for m in made if isinstance(m, Pair)),
        found.tried,
        Counter(m for m in made if isinstance(m, str)),
    )


def _prompts(concept: Concept, pairing: str, asking: Asking, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """What can stand on either side of a pair."""
    if pairing == "recall":
        both = [Prompt(a.prompt, a.right, a.group) for a in concept.answers] or _unfinished(concept)
        return both, both
    if concept.kind != "binary":
        return [], []
    true, false = ([e for e in concept.examples if bool(e.target) is side] for side in (True, False))
    order = random.Random(seed)
    shown = [e for side in (true, false) for e in order.sample(side, min(asking.shots // 2, len(side)))]
    order.shuffle(shown)
    head = "".join(f"{e.text}{asking.question}{asking.right if e.target else asking.wrong}\n" for e in shown)
    return tuple([_asked(e, head, asking) for e in side if e not in shown] for side in (true, false))  # type: ignore[return-value]


def _asked(example: Any, head: str, asking: Asking) -> Prompt:
    word = _last_word(example.text)
    place = None if word is None else (len(head) + word[0], len(head) + word[1])
    return Prompt(head + example.text + asking.question, asking.right, example.group, place)


def _unfinished(concept: Concept) -> list[Prompt]:
    """True statements up to their last word, which is the answer."""
    found = []
    for example in concept.examples if concept.kind == "binary" else ():
        word = _last_word(example.text)
        if example.target and word is not None and (said := example.text[: word[0]].rstrip()):
            found.append(Prompt(said, example.text[len(said) : word[1]], example.group))
    return found


def _last_word(text: str) -> tuple[int, int] | None:
    words = list(re.finditer(r"\w[\w'’-]*", text))
    return words[-1].span() if words else None


def _partners(
    tokenizer: Any, clean: Sequence[Prompt], corrupt: Sequence[Prompt], pairing: str, seed: int
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
        allowed = _allowed([clean[i] for i, _ in ours], [corrupt[j] for j, _ in theirs], pairing)
        for x, y, start, end in _spans(a, b, allowed):
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
                pairing != "one_span" and len(frames[c.frame]) < PATTERN,
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


def _ids(tokenizer: Any, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
    made = encode_all(tokenizer, [p.text for p in prompts], [None] * len(prompts))
    return [tuple(one.ids.tolist()) for one in made]


def _by_length(rows: Sequence[tuple[int, ...]], order: random.Random) -> dict[int, list[tuple[int, tuple[int, ...]]]]:
    found: dict[int, list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    for i, row in enumerate(rows):
        found[len(row)].append((i, row))
    return {length: part if len(part) <= MOST else order.sample(part, MOST) for length, part in found.items()}


def _allowed(clean: Sequence[Prompt], corrupt: Sequence[Prompt], pairing: str) -> Bool[Tensor, "clean corrupt"]:
    def word(prompt: Prompt) -> str | None:
        return None if prompt.object is None else prompt.text[slice(*prompt.object)]

    if pairing == "one_span":
        return torch.ones(len(clean), len(corrupt), dtype=torch.bool)
    if pairing == "same_object":
        return torch.tensor([[word(a) is not None and word(a) == word(b) for b in corrupt] for a in clean])
    return torch.tensor([[a.answer != b.answer for b in corrupt] for a in clean])


def _spans(
    a: Int[Tensor, "clean token"], b: Int[Tensor, "corrupt token"], allowed: Bool[Tensor, "clean corrupt"]
) -> list[tuple[int, int, int, int]]:
    """(row, row, first, one past the last token that differs) of each allowed pair of rows that differ in at most half of them."""
    found = []
    head = common([*a.tolist(), *b.tolist()])
    for x, row in enumerate(a):
        differs = row != b
        first = differs.int().argmax(1)
        end = differs.shape[1] - differs.flip(1).int().argmax(1)
        fits = allowed[x] & differs.any(1) & (2 * (end - first) <= differs.shape[1] - head) & (end < differs.shape[1])
        found += [(x, y, int(first[y]), int(end[y])) for y in fits.nonzero()[:, 0].tolist()]
    return found


def aligned(tokenizer: Any, drawn: Drawn, pairing: str) -> Pair | str:
    """The pair in tokens, or why it does not align."""
    texts = [p.text + answer for p in (drawn.clean, drawn.corrupt) for answer in (drawn.right, drawn.wrong)]
    made = encode_all(tokenizer, texts, [None] * 4)
    ours = _cut(made[0], made[1], len(drawn.clean.text))
    theirs = _cut(made[2], made[3], len(drawn.corrupt.text))
    if ours is None or theirs is None:
        return "answers that one token cannot tell apart"
    (clean, told), (corrupt, also) = ours, theirs
    if told != also:
        return "answers cut into other tokens"
    if len(clean) != len(corrupt):
        return "prompts of different lengths in tokens"
    differs = [x != y for x, y in zip(clean, corrupt, strict=True)]
    if not any(differs) or differs[-1]:
        return "prompts that differ in their last token, or nowhere"
    roles = _roles(made[0], len(clean), differs, drawn.clean.object, pairing)
    return Pair(drawn, clean, corrupt, told[0], told[1], roles)


def _cut(right: Encoding, wrong: Encoding, prompt: int) -> tuple[tuple[int, ...], tuple[int, int]] | None:
    """The tokens before the first in which the two answers differ, and the two that do."""
    a, b = right.ids.tolist(), wrong.ids.tolist()
    upto = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    # A token that holds the end of the prompt and the start of the answer would leave the prompt unfinished.
    if not upto or int(right.offsets[upto - 1, 1]) < len(right.text[:prompt].rstrip()) or bool(right.special[upto]):
        return None
    return tuple(a[:upto]), (a[upto], b[upto])


def _roles(
    made: Encoding, length: int, differs: Sequence[bool], object: tuple[int, int] | None, pairing: str
) -> tuple[str, ...]:
    first, last = differs.index(True), length - 1 - list(reversed(differs)).index(True)
    word = set() if object is None else set(touching(made.offsets, *object).nonzero()[:, 0].tolist())
    # Twins that differ in their last word differ in the object; elsewhere, what differs is the subject.
    swapped = pairing == "one_span" and bool(word & set(range(first, last + 1)))
    roles = []
    for token in range(length):
        if token == length - 1:
            role = "last"
        elif token < first:
            role = "before"
        elif token <= last:
            role = "object" if swapped else "subject_last" if token == last else "subject"
        elif token in word:
            role = "object"
        else:
            role = "between" if word and token < min(word) else "after"
        roles.append(role)
    return tuple(roles)
