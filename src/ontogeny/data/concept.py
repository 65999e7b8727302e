"""A concept: labelled examples with a typed target, a read position, and groups.

The texts of one group (one question, the twins of a sentence, the two halves of a pair) are never on both sides of a split.
`Concept.from_file` reads a file of examples; `ontogeny.data.tables` and `ontogeny.data.parsing` describe its format.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from ontogeny.data.examples import Answer, Example, TargetKind, class_meaning
from ontogeny.data.grouping import derive_groups
from ontogeny.data.parsing import Columns, parse_table
from ontogeny.data.positions import Position, last
from ontogeny.data.tables import file_stem, read_table, table_from_frame
from ontogeny.data.templates import Template, parse_template
from ontogeny.errors import BadInput, SingleClassError
from ontogeny.notebook import rich_html
from ontogeny.statistics.splits import number_groups

if TYPE_CHECKING:
    import pandas

_MIN_GROUPS = 10
_MIN_GROUPS_PER_CLASS = 2


@dataclass(frozen=True)
class Concept:
    """A concept that a probe can be trained for; immutable and checked on construction.

    Raises:
        BadInput: fewer than 10 groups, a class in fewer than 2 groups, an invalid example, or all texts or all targets equal.
    """

    name: str
    examples: tuple[Example, ...]
    kind: TargetKind = "binary"
    classes: tuple[str, ...] = ()
    """Names of the classes by index; a binary concept has the negative class first, or no names."""
    position: Position = last
    answers: tuple[Answer, ...] = ()
    template: Template = False
    """The template in which texts are read and questions are asked: none, own (the chat template of each checkpoint's tokenizer; one
    without is read bare), a file, or a text; see `ontogeny.data.templates`."""
    twins: bool = False
    """Whether each group is a text and its perturbed copy, the clean one first; `flip_rate` then compares the two."""
    sign: int = +1
    """+1 if the positive class is the desired one, else -1."""
    licence: str | None = None
    source: str | None = None
    question: str | None = None
    """The question that the label answers: 'Is the statement true?'"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", parse_template(self.template))
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
        positive: str | None = None,
        ignore: Sequence[str] = (),
        template: Template | Path = False,
        sign: int = +1,
        licence: str | None = None,
        source: str | None = None,
        question: str | None = None,
    ) -> "Concept":
        """Read a concept from a CSV, TSV, JSON, JSONL or Parquet file, a folder of `datasets`, or a data set of the Hub.

        Args:
            path: A file (text files plain or .gz), a folder written by `save_to_disk`, or OWNER/NAME[:SPLIT].
            name: Name of the concept; by default the file's name without endings.
            position: Read position; by default the column `position`, else the last token.
            limit: Maximum number of examples; groups are kept whole, `seed` draws them.
            text, label, group, pair: Names of columns that differ from these.
            kind: Kind of target; by default the column `kind`, else inferred from the labels.
            positive: Label of the positive class; by default the column `positive`, else as `ontogeny.data.parsing` says.
            ignore: Columns to leave out, because they mean something else here.
            template, sign, licence, source, question: Fields of the concept.

        Raises:
            BadInput: the file is not a concept; one line, with the line of the file.
        """
        table = read_table(path).without(ignore)
        parsed = parse_table(table, Columns(text, label, group, pair), position, kind, positive)
        concept = cls(
            name or file_stem(path),
            **vars(parsed),
            template=parse_template(template),
            sign=sign,
            licence=licence,
            source=source,
            question=question,
        )
        return concept if limit is None else concept.limited(limit, seed)

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
        positive: str | None = None,
        ignore: Sequence[str] = (),
    ) -> "Concept":
        """Read a concept from a data frame with the columns of a concept file; see `from_file`."""
        table = table_from_frame(frame).without(ignore)
        return cls(name, **vars(parse_table(table, Columns(text, label, group, pair), position, kind, positive)))

    @classmethod
    def from_pairs(
        cls,
        positive: Sequence[str],
        negative: Sequence[str],
        *,
        name: str = "pairs",
        position: Position = last,
    ) -> "Concept":
        """A binary concept from contrast pairs; groups are derived as for a file.

        Args:
            positive: Texts of the positive class.
            negative: Their partners, in the same order.
            name: Name of the concept.
            position: Read position.

        Raises:
            BadInput: the lists differ in length, or there are too few pairs.
        """
        if isinstance(positive, str) or isinstance(negative, str):
            raise BadInput("`positive` and `negative` must be lists of texts, got one text: put it in a list.")
        if len(positive) != len(negative):
            raise BadInput(
                f"`positive` and `negative` must hold the two texts of each pair, got {len(positive)} and {len(negative)} texts: give as "
                "many of each, in the same order."
            )
        rows = [
            (text, label, str(i))
            for i, pair in enumerate(zip(positive, negative, strict=True))
            for text, label in zip(pair, (True, False), strict=True)
        ]
        groups = derive_groups([text for text, _, _ in rows], [pair for _, _, pair in rows])
        examples = (
            Example(text, target, group, pair) for (text, target, pair), group in zip(rows, groups, strict=True)
        )
        return cls(name, tuple(examples), position=position)

    def _repr_html_(self) -> str:
        return rich_html("concept", self)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(example.text for example in self.examples)

    def labels(self) -> Tensor:
        """Bool for a binary concept, int64 class indices for classes, float32 for numbers."""
        dtype = {"binary": torch.bool, "classes": torch.int64, "number": torch.float32}[self.kind]
        return torch.tensor([example.target for example in self.examples], dtype=dtype)

    def group_ids(self) -> Int[Tensor, " example"]:
        """Groups numbered in the order in which they appear."""
        return number_groups(example.group for example in self.examples)

    def pair_ids(self) -> Int[Tensor, " example"]:
        """Pairs numbered in the order in which they appear; -1 for an example without one."""
        return number_groups(example.pair for example in self.examples)

    @property
    def meaning(self) -> str:
        """Which class is positive, in words: '1 = singular, 0 = plural'; empty if the classes have no names or are more than two."""
        return class_meaning(self.classes) if self.kind == "binary" else ""

    def seam_warnings(self) -> list[str]:
        """Warnings of questions whose prompt and answer run into one word, or meet with two spaces."""
        pairs = [(a.prompt, end) for a in self.answers if not self.template for end in (a.right, a.wrong)]
        problems = (
            ("run into one word", "begin the answers with a space", _is_glued),
            ("meet with two spaces", "leave one of them out", lambda start, end: start[-1:] == " " == end[:1]),
        )
        warnings = []
        for problem, remedy, holds in problems:
            if found := [pair for pair in pairs if holds(*pair)]:
                start, end = found[0]
                warnings.append(
                    f"prompt and answer {problem} in {len(found)} of {len(pairs)} answers, as in {start[-20:] + end[:20]!r}, so the model "
                    f"reads other tokens than in a text: {remedy}"
                )
        return warnings

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything that determines measurements; name, licence, source and question do not."""
        twins = ["twins"] if self.twins else []
        # Earlier versions asked the questions of a concept in a template without it.
        asked = ["asked in template"] if self.template and self.answers else []
        settings = [self.kind, self.classes, str(self.position), self.template, self.sign, *twins, *asked]
        rows = [[e.text, float(e.target), e.group, e.pair, e.span, e.type, *e.chat] for e in self.examples]
        answers = [[a.prompt, a.right, a.wrong, a.group] for a in self.answers]
        return hashlib.sha256(json.dumps([settings, rows, answers]).encode()).hexdigest()

    def limited(self, n: int, seed: int = 0) -> "Concept":
        """The concept with at most `n` examples: whole random groups, classes as even as possible, in the same order.

        Raises:
            BadInput: `n` examples leave too few groups.
        """
        if n >= len(self.examples):
            return self
        keep = _sample_groups(self, n, seed)
        dropped = {e.group for e in self.examples} - keep
        examples = tuple(e for e in self.examples if e.group in keep)
        try:
            return replace(self, examples=examples, answers=tuple(a for a in self.answers if a.group not in dropped))
        except BadInput as error:
            reason = str(error).rsplit(": ", 1)[0]  # without its remedy, which is for a file
            raise BadInput(
                f"a limit of {n} examples is too small, since groups stay whole ({reason}): raise `limit`, up to {len(self.examples)}."
            ) from error


def _is_glued(prompt: str, answer: str) -> bool:
    """Whether letters meet; scripts without spaces between words (from U+0E00 on: Thai, Chinese, Japanese, …) do not count."""
    meeting = prompt[-1:] + answer[:1]
    return len(meeting) == 2 and meeting.isalnum() and max(meeting) < "\u0e00"


def _sample_groups(concept: Concept, n: int, seed: int) -> set[str]:
    """Names of random groups for `n` examples: first those that fit the even share of every class, then the least uneven of the others."""
    classes = [0 if concept.kind == "number" else int(e.target) for e in concept.examples]
    share = _even_shares(Counter(classes), n)
    by_group: dict[str, Counter[int]] = {}
    for example, target in zip(concept.examples, classes, strict=True):
        by_group.setdefault(example.group, Counter())[target] += 1
    names = list(by_group)
    order = [names[i] for i in torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()]
    taken: Counter[int] = Counter()
    keep: set[str] = set()

    def excess(group: str) -> int:
        return sum(max(0, taken[target] + count - share[target]) for target, count in by_group[group].items())

    for group in order:
        if excess(group) == 0:
            taken += by_group[group]
            keep.add(group)
    # Groups of several classes can fill one share and leave another open: then the number of examples takes precedence.
    others = [group for group in order if group not in keep]
    for group in sorted(others, key=lambda group: excess(group) / by_group[group].total()):
        if taken.total() + by_group[group].total() <= n:
            taken += by_group[group]
            keep.add(group)
    return keep


def _even_shares(counts: Counter[int], n: int) -> dict[int, int]:
    """Even shares of `n`; the part that a rare class cannot fill goes to the others."""
    share: dict[int, int] = {}
    for i, (target, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        share[target] = min(count, math.ceil((n - sum(share.values())) / (len(counts) - i)))
    return share


def _check_concept(concept: Concept) -> None:
    subject, examples = f"concept {concept.name!r}", concept.examples
    if concept.kind not in get_args(TargetKind):
        raise BadInput(f"{subject}: the kind of target must be binary, classes or number, got {concept.kind!r}.")
    if concept.sign not in (1, -1):
        raise BadInput(f"{subject}: sign must be +1 or -1, got {concept.sign!r}.")
    if not examples:
        raise BadInput(f"{subject} has no examples: give at least {_MIN_GROUPS}, of two classes.")
    for i, example in enumerate(examples):
        if problem := _why_invalid(example, concept.kind, len(concept.classes)):
            raise BadInput(f"{subject}, example {i + 1} of {len(examples)}: {problem}")
    for answer in concept.answers:
        if not _encodable(answer.prompt + answer.right + answer.wrong):
            raise BadInput(f"{subject}: the question {answer.prompt[:60]!a} {_SURROGATE}")
        if answer.right.strip() == answer.wrong.strip():
            raise BadInput(
                f"{subject}: right and wrong must be two answers, got {answer.right!r} twice: remove the question."
            )
    if "span" in concept.position.region.names():
        bare = [i for i, example in enumerate(examples) if example.span is None]
        if bare:
            raise BadInput(
                f"{subject} is read at {concept.position}, but example {bare[0] + 1} has no span ({len(bare)} of {len(examples)} have "
                "none): give span_start and span_end, or another position."
            )
    if len({(example.text, example.span) for example in examples}) == 1:
        raise BadInput(f"{subject}: all {len(examples)} texts are equal: check that `text` names the right column.")
    _check_targets(concept, subject)
    _check_groups(concept, subject)


_SURROGATE = "contains a lone surrogate (invalid Unicode): fix the row."


def _why_invalid(example: Example, kind: TargetKind, classes: int) -> str | None:
    """The problem of one example, if any."""
    target: Any = example.target
    if not example.text.strip():
        return "the text is empty: remove the row."
    if not _encodable(example.text):
        return f"the text {_SURROGATE}"
    if example.span is not None and not 0 <= example.span[0] < example.span[1] <= len(example.text):
        first, past = example.span
        return f"the span must lie inside the text of {len(example.text)} characters, got {first}–{past}."
    if kind == "binary" and target not in (0, 1):
        return f"a binary target must be True or False, got {target!r}."
    if kind == "classes" and (not isinstance(target, int) or not 0 <= target < classes):
        return f"the target must be the index of one of the {classes} classes, got {target!r}."
    if kind == "number" and not math.isfinite(target):
        return f"the target must be a finite number, got {target!r}: remove the row."
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_targets(concept: Concept, subject: str) -> None:
    values = {example.target for example in concept.examples}
    if len(values) > 1:
        return
    if concept.kind == "number":
        raise BadInput(f"{subject}: numeric targets must vary, got {len(concept.examples)} times {values.pop()!r}.")
    index = int(values.pop())
    raise SingleClassError(subject, len(concept.examples), concept.classes[index] if concept.classes else bool(index))


def _check_groups(concept: Concept, subject: str) -> None:
    groups = {example.group for example in concept.examples}
    if len(groups) < _MIN_GROUPS:
        raise BadInput(
            f"{subject} has {len(groups)} groups among {len(concept.examples)} examples, and needs {_MIN_GROUPS}, since a split never "
            "divides a group: add examples, or give a column 'group' with smaller groups."
        )
    if concept.kind != "number":
        groups_of = Counter(int(target) for _, target in {(e.group, e.target) for e in concept.examples})
        rare, count = min(groups_of.items(), key=lambda item: item[1])
        if count < _MIN_GROUPS_PER_CLASS:
            label = concept.classes[rare] if concept.classes else bool(rare)
            raise BadInput(
                f"{subject}: the class {label!r} is in {count} group, and needs {_MIN_GROUPS_PER_CLASS} to be learned and tested: add "
                "examples, or remove the class."
            )
    group_of: dict[str, str] = {}
    for example in concept.examples:
        if example.pair is not None and group_of.setdefault(example.pair, example.group) != example.group:
            raise BadInput(f"{subject}: the pair {example.pair!r} is in two groups: give its examples one group.")
