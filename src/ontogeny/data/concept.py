"""A concept: labelled examples, a typed target, where to read, and what makes two examples belong to one group.

Texts of one group (one question, the twins of a sentence, the two halves of a pair) never stand on both sides of a split. A file of
examples becomes a concept with `Concept.from_file`; what it may hold is said in `ontogeny.data.tables` and `ontogeny.data.parsing`.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from ontogeny.data.examples import Answer, Example, TargetKind
from ontogeny.data.positions import Position, last
from ontogeny.errors import BadInput, SingleClassError

if TYPE_CHECKING:
    import pandas


_MIN_GROUPS = 10
_MIN_GROUPS_PER_CLASS = 2


@dataclass(frozen=True)
class Concept:
    name: str
    examples: tuple[Example, ...]
    kind: TargetKind = "binary"
    classes: tuple[str, ...] = ()
    """Names of the classes in the order of their index; of a binary concept the negative first, or nothing."""
    position: Position = last
    answers: tuple[Answer, ...] = ()
    template: bool = False
    """Read the text as a user's turn in the tokenizer's chat template."""
    twins: bool = False
    """Whether each group is a text and the same text perturbed, the clean one first: readings of the two are then compared."""
    sign: int = +1
    """+1 where the positive class is the desired one, -1 where it is the undesired."""
    licence: str | None = None
    source: str | None = None
    question: str | None = None
    """What the concept asks, in words: 'Is the statement true?'"""

    def __post_init__(self) -> None:
        _check_concept(self)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        position: Position | None = None,
        limit: int | None = None,
        seed: int = 0,
        text: str | None = None,
        label: str | None = None,
        group: str | None = None,
        pair: str | None = None,
        kind: TargetKind | None = None,
        template: bool = False,
        sign: int = +1,
        licence: str | None = None,
        source: str | None = None,
        question: str | None = None,
    ) -> "Concept":
        """Read a CSV, TSV or JSONL file, plain or .gz; `text`, `label`, `group`, `pair` name columns that are called otherwise.

        Raises:
            BadInput: the file cannot be read as a concept; one line, with the line of the file.
        """
        from ontogeny.data.parsing import Columns, concept_from_rows
        from ontogeny.data.tables import file_stem, read_table

        made = concept_from_rows(
            read_table(path), name or file_stem(path), Columns(text, label, group, pair), position=position, kind=kind
        )
        made = replace(made, template=template, sign=sign, licence=licence, source=source, question=question)
        return made if limit is None else made.limited(limit, seed)

    @classmethod
    def from_frame(
        cls,
        frame: "pandas.DataFrame",
        *,
        name: str,
        position: Position | None = None,
        text: str | None = None,
        label: str | None = None,
        group: str | None = None,
        pair: str | None = None,
        kind: TargetKind | None = None,
    ) -> "Concept":
        """The same from a data frame with the columns of a concept file."""
        from ontogeny.data.parsing import Columns, concept_from_rows
        from ontogeny.data.tables import table_from_frame

        return concept_from_rows(
            table_from_frame(frame), name, Columns(text, label, group, pair), position=position, kind=kind
        )

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str]], *, name: str, position: Position = last) -> "Concept":
        """A binary concept of contrast pairs, each the positive text first; groups are derived as for a file."""
        from ontogeny.data.grouping import derive_groups

        both = [
            (text, positive, str(i))
            for i, pair in enumerate(pairs)
            for text, positive in zip(pair, (True, False), strict=True)
        ]
        groups = derive_groups([text for text, _, _ in both], [pair for _, _, pair in both])
        made = [
            Example(text, positive, group, pair) for (text, positive, pair), group in zip(both, groups, strict=True)
        ]
        return cls(name, tuple(made), position=position)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(example.text for example in self.examples)

    def labels(self) -> Tensor:
        """Bool for a binary concept, int64 class indices for classes, float32 for numbers."""
        dtype = {"binary": torch.bool, "classes": torch.int64, "number": torch.float32}[self.kind]
        return torch.tensor([example.target for example in self.examples], dtype=dtype)

    def group_ids(self) -> Int[Tensor, " example"]:
        """Groups numbered in the order in which they appear."""
        return torch.tensor(_number_by_name([example.group for example in self.examples]), dtype=torch.int64)

    def pair_ids(self) -> Int[Tensor, " example"]:
        """Pairs numbered in the order in which they appear; -1 for an example without one."""
        return torch.tensor(_number_by_name([example.pair for example in self.examples]), dtype=torch.int64)

    @cached_property
    def hash(self) -> str:
        """Of all that decides what is measured; the name, licence and source are not in it."""
        told = [
            self.kind,
            self.classes,
            str(self.position),
            self.template,
            self.sign,
            *(["twins"] if self.twins else []),
        ]
        rows = [[e.text, float(e.target), e.group, e.pair, e.span, e.type] for e in self.examples]
        asked = [[a.prompt, a.right, a.wrong, a.group] for a in self.answers]
        return hashlib.sha256(json.dumps([told, rows, asked]).encode()).hexdigest()

    def limited(self, n: int, seed: int = 0) -> "Concept":
        """At most `n` examples: whole groups drawn at random, the classes as even as they allow, the order kept.

        Raises:
            BadInput: so few examples leave too few groups.
        """
        if n >= len(self.examples):
            return self
        keep = _sample_groups(self, n, seed)
        dropped = {e.group for e in self.examples} - keep
        examples = tuple(e for e in self.examples if e.group in keep)
        try:
            return replace(self, examples=examples, answers=tuple(a for a in self.answers if a.group not in dropped))
        except BadInput as fault:
            raise BadInput(f"a limit of {n} examples is too small, since groups stay whole: {fault}") from fault


def _number_by_name(names: Sequence[str | None]) -> list[int]:
    number: dict[str, int] = {}
    return [-1 if name is None else number.setdefault(name, len(number)) for name in names]


def _sample_groups(concept: Concept, n: int, seed: int) -> set[str]:
    """Groups for `n` examples, in random order: first those with which no class exceeds its share, then the least uneven of the others."""
    classes = [0 if concept.kind == "number" else int(e.target) for e in concept.examples]
    share = _even_shares(Counter(classes), n)
    inside: dict[str, Counter[int]] = {}
    for example, target in zip(concept.examples, classes, strict=True):
        inside.setdefault(example.group, Counter())[target] += 1
    names = list(inside)
    order = [names[i] for i in torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()]
    taken: Counter[int] = Counter()
    keep: dict[str, None] = {}

    def over(group: str) -> int:
        return sum(max(0, taken[target] + count - share[target]) for target, count in inside[group].items())

    for group in order:
        if over(group) == 0:
            taken += inside[group]
            keep[group] = None
    # Groups of several classes can fill one share and leave another open: then as many examples as asked for matter more.
    for group in sorted(
        (group for group in order if group not in keep), key=lambda group: over(group) / inside[group].total()
    ):
        if taken.total() + inside[group].total() <= n:
            taken += inside[group]
            keep[group] = None
    return set(keep)


def _even_shares(counts: Counter[int], n: int) -> dict[int, int]:
    """Even shares of `n`; what a rare class cannot fill goes to the others."""
    share: dict[int, int] = {}
    for i, (target, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        share[target] = min(count, math.ceil((n - sum(share.values())) / (len(counts) - i)))
    return share


def _check_concept(concept: Concept) -> None:
    told = f"concept {concept.name!r}"
    if concept.kind not in get_args(TargetKind):
        raise BadInput(f"{told}: {concept.kind!r} is no kind of target. Choose binary, classes or number.")
    if concept.sign not in (1, -1):
        raise BadInput(f"{told}: sign is +1 or -1, not {concept.sign!r}.")
    if not concept.examples:
        raise BadInput(f"{told} has no examples. Give at least {_MIN_GROUPS}, of two classes.")
    for i, example in enumerate(concept.examples):
        if fault := _why_invalid(example, concept.kind, len(concept.classes)):
            raise BadInput(f"{told}, example {i + 1} of {len(concept.examples)}: {fault}")
    if broken := [a for a in concept.answers if not _encodable(a.prompt + a.right + a.wrong)]:
        raise BadInput(f"{told}: the question {broken[0].prompt[:60]!a} holds half a character. Mend the row.")
    if "span" in concept.position.region.names():
        bare = [i for i, example in enumerate(concept.examples) if example.span is None]
        if bare:
            raise BadInput(
                f"{told} is read at {concept.position}, but example {bare[0] + 1} marks no span ({len(bare)} of "
                f"{len(concept.examples)} do not). Give span_start and span_end, or another position."
            )
    if len({(example.text, example.span) for example in concept.examples}) == 1:
        raise BadInput(f"{told}: all {len(concept.examples)} texts are equal. Is the right column read as text?")
    _check_targets(concept, told)
    _check_groups(concept, told)


def _why_invalid(example: Example, kind: TargetKind, classes: int) -> str | None:
    """What is wrong with one example, if anything."""
    target: Any = example.target
    if not example.text.strip():
        return "the text is empty. Remove the row."
    if not _encodable(example.text):
        return "the text holds half a character (a lone surrogate), which no tokenizer takes. Mend the row."
    if example.span is not None and not 0 <= example.span[0] < example.span[1] <= len(example.text):
        return f"the span {example.span[0]}–{example.span[1]} lies outside the text of {len(example.text)} characters."
    if kind == "binary" and target not in (0, 1):
        return f"a binary target is True or False, not {target!r}."
    if kind == "classes" and (not isinstance(target, int) or not 0 <= target < classes):
        return f"the target {target!r} is not the index of one of the {classes} classes."
    if kind == "number" and not math.isfinite(target):
        return f"the target is {target!r}, not a finite number. Remove the row."
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_targets(concept: Concept, told: str) -> None:
    values = {example.target for example in concept.examples}
    if len(values) > 1:
        return
    if concept.kind == "number":
        raise BadInput(
            f"{told}: all {len(concept.examples)} targets are {values.pop()!r}. A number to be read must vary."
        )
    index = int(values.pop())
    raise SingleClassError(told, len(concept.examples), concept.classes[index] if concept.classes else bool(index))


def _check_groups(concept: Concept, told: str) -> None:
    groups = {example.group for example in concept.examples}
    if len(groups) < _MIN_GROUPS:
        raise BadInput(
            f"{told} has {len(groups)} groups among {len(concept.examples)} examples, and a split needs {_MIN_GROUPS}: a group is never "
            "divided. Add examples, or give a finer `group` column."
        )
    if concept.kind != "number":
        held = Counter(int(target) for _, target in {(e.group, e.target) for e in concept.examples})
        rare, count = min(held.items(), key=lambda item: item[1])
        if count < _MIN_GROUPS_PER_CLASS:
            named = concept.classes[rare] if concept.classes else bool(rare)
            raise BadInput(
                f"{told}: the class {named!r} stands in {count} group, and needs {_MIN_GROUPS_PER_CLASS} to be both learned and tested. "
                "Add examples of it, or leave the class out."
            )
    where: dict[str, str] = {}
    for example in concept.examples:
        if example.pair is not None and where.setdefault(example.pair, example.group) != example.group:
            raise BadInput(f"{told}: the pair {example.pair!r} lies in two groups. Give its examples one group.")
