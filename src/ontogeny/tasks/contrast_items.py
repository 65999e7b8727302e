"""Contrast items: prompts with one continuation that shows the concept and one that does not.

From the questions of a concept: if the right answer depends on the class of the prompt, the positive class's answer shows the concept, else
the right one does. Without questions, from its pairs: the words in which the two texts differ. Steering is measured by likelihoods of open
continuations, not by letters of a multiple choice (arXiv:2410.17245).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput, unknown_name
from ontogeny.statistics.splits import group_split, number_groups

ContrastAim = Literal["auto", "right", "positive"]
"""The promoted answer: the right one, or that of the positive class for every prompt."""
_TEST_GROUP_SHARE, _DEVELOPMENT_GROUP_SHARE = 0.3, 0.3
"""Shares of the groups; vectors are fitted on the rest. The test groups are those of a single-split trace with the same seed."""


@dataclass(frozen=True)
class ContrastItem:
    """A prompt with the continuation that shows the concept and the one that does not, each with its leading space."""

    prompt: str
    matching: str
    other: str
    group: str


@dataclass(frozen=True, eq=False)
class Splits:
    """A concept's examples and items in three splits that share no group."""

    fit: Int[Tensor, " example"]
    """Indices of the examples that vectors are fitted on."""
    development: tuple[ContrastItem, ...]
    test: tuple[ContrastItem, ...]
    fit_items: tuple[ContrastItem, ...]


def contrast_items(concept: Concept, aim: ContrastAim = "auto", before: str = ".") -> list[ContrastItem]:
    """The items of a concept; `before` is the prompt of pairs that differ from the first word, if their group has no other pair.

    Raises:
        BadInput: neither questions nor pairs, or `aim` is `positive` and the class of a prompt is unknown.
    """
    if aim not in get_args(ContrastAim):
        raise unknown_name("aim", aim, get_args(ContrastAim))
    if not concept.answers:
        return _from_pairs(concept, before)
    classes = [_class_of(concept, answer) for answer in concept.answers]
    if aim == "positive" and None in classes:
        bare = concept.answers[classes.index(None)]
        raise BadInput(
            f"prompts of {concept.name} must begin with one of its texts, {bare.prompt[:60]!r} does not, so its class is not known: set "
            "`aim` to right."
        )
    if aim == "right" or (aim == "auto" and not _answer_depends_on_class(concept.answers, classes)):
        return [ContrastItem(a.prompt, a.right, a.wrong, a.group) for a in concept.answers]
    return [
        ContrastItem(a.prompt, *((a.right, a.wrong) if positive else (a.wrong, a.right)), a.group)
        for a, positive in zip(concept.answers, classes, strict=True)
    ]


def _class_of(concept: Concept, answer: Answer) -> bool | None:
    """The class of the longest text that the prompt begins with; None if it begins with no text."""
    classes = {e.text: bool(e.target) for e in concept.examples if answer.prompt.startswith(e.text)}
    return classes[max(classes, key=len)] if classes else None


def _answer_depends_on_class(answers: Sequence[Answer], classes: Sequence[bool | None]) -> bool:
    """Whether what is right for one class is wrong for the other."""
    if None in classes:
        return False
    right = {side: {a.right for a, c in zip(answers, classes, strict=True) if c == side} for side in (True, False)}
    wrong = {side: {a.wrong for a, c in zip(answers, classes, strict=True) if c == side} for side in (True, False)}
    return bool(right[True]) and right[True] == wrong[False] and right[False] == wrong[True]


def _from_pairs(concept: Concept, before: str) -> list[ContrastItem]:
    """Items from pairs; texts that differ from the first word follow a text of each class of the next pair in their group."""
    sides: dict[str, dict[bool, str]] = {}
    groups: dict[str, str] = {}
    for example in concept.examples:
        if example.pair is not None:
            sides.setdefault(example.pair, {})[bool(example.target)] = example.text
            groups[example.pair] = example.group
    if not (whole := [pair for pair, texts in sides.items() if len(texts) == 2]):
        raise BadInput(
            f"{concept.name} has neither questions (columns prompt, right, wrong) nor pairs, so steering has no continuation to promote: "
            "add one of them."
        )
    items: list[ContrastItem] = []
    for pair in whole:
        start, matching, other = _split_common_prefix(sides[pair][True], sides[pair][False])
        ring = [near for near in whole if groups[near] == groups[pair]]
        near = sides[ring[(ring.index(pair) + 1) % len(ring)]]
        prompts = [start] if start else [near[True], near[False]] if len(ring) > 1 else [before]
        items += [ContrastItem(prompt, matching, other, groups[pair]) for prompt in prompts]
    return list(dict.fromkeys(items))


def _split_common_prefix(positive: str, negative: str) -> tuple[str, str, str]:
    """The common beginning of two texts and the rest of each, without their common end."""
    one, other = positive.split(" "), negative.split(" ")
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    end = 0
    while end < min(len(one), len(other)) - start - 1 and one[-1 - end] == other[-1 - end]:
        end += 1
    tails = [" ".join(words[start : len(words) - end]) for words in (one, other)]
    return " ".join(one[:start]), f" {tails[0]}", f" {tails[1]}"


def split_items(concept: Concept, items: Sequence[ContrastItem], *, seed: int = 0) -> Splits:
    """Split by group: examples to fit on, items to choose alpha on, items to report on.

    Raises:
        BadInput: a concept that is not binary, or too few groups for three splits.
    """
    if concept.kind != "binary":
        raise BadInput(
            f"a steering vector needs a binary concept with two classes, {concept.name} is of kind {concept.kind}."
        )
    y, groups = concept.labels(), concept.group_ids()
    try:
        outer = group_split(groups, y, "binary", test=_TEST_GROUP_SHARE, seed=seed)
        inner = group_split(
            groups[outer.train],
            y[outer.train],
            "binary",
            test=_DEVELOPMENT_GROUP_SHARE / (1 - _TEST_GROUP_SHARE),
            seed=seed,
        )
    except BadInput as fault:
        raise BadInput(f"{concept.name}: {fault}") from None
    fit, names = outer.train[inner.train], [e.group for e in concept.examples]
    held = {names[i]: "test" for i in outer.test.tolist()} | {names[i]: "fit" for i in fit.tolist()}
    dealt: dict[str, list[ContrastItem]] = {"fit": [], "development": [], "test": []}
    for item in items:
        dealt[held.get(item.group, "development")].append(item)
    for side, members in dealt.items():
        if len({item.group for item in members}) < 2:
            raise BadInput(
                f"{concept.name} must have questions of 2 groups in the {side} split, got {len({i.group for i in members})}: add groups."
            )
    return Splits(torch.as_tensor(fit), tuple(dealt["development"]), tuple(dealt["test"]), tuple(dealt["fit"]))


def cap_items(sides: Splits, most: int) -> Splits:
    """At most `most` items to choose and to report on, evenly spaced; the fit split is unchanged."""

    def few(items: tuple[ContrastItem, ...]) -> tuple[ContrastItem, ...]:
        places = torch.linspace(0, len(items) - 1, min(most, len(items)), dtype=torch.float64).round().long().tolist()
        return tuple(items[i] for i in places)

    return replace(sides, development=few(sides.development), test=few(sides.test))


def item_group_ids(items: Sequence[ContrastItem]) -> Int[Tensor, " item"]:
    """The groups of some items as numbers."""
    return number_groups(item.group for item in items)
