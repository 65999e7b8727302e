"""Parsing a table of examples into the parts of a concept.

Columns: `text` (or `statement`) and `label` (or `target`). Optional: `group`, `pair`, `type`; a marked part as `span` (a substring that
occurs once) or `span_start` and `span_end` (characters); an answer as `prompt`, `right` and `wrong`; `position` and `kind`, equal in all
rows.

Labels: 0 and 1, true and false, or yes and no make a binary concept. So do two other strings or two integers: the second in order is the
positive one, and their names are kept. Up to 50 strings, or up to 10 integers, make classes. More than 30 different numbers make a numeric
target, and so do more than 10 if at least one has a decimal point. All other labels are ambiguous and rejected: write names for classes,
or state the kind.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ontogeny.data.examples import Answer, Example, TargetKind
from ontogeny.data.grouping import derive_groups
from ontogeny.data.positions import Position, last
from ontogeny.data.tables import DataRow, DataTable
from ontogeny.errors import BadInput

_BINARY = (
    {"0": False, "1": True},
    {"0.0": False, "1.0": True},
    {"false": False, "true": True},
    {"no": False, "yes": True},
)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.IGNORECASE)
_Targets = tuple[TargetKind, tuple[str, ...], list[Any]]


@dataclass(frozen=True)
class Columns:
    """Names of columns that differ from the usual ones; None for the usual name."""

    text: str | None = None
    label: str | None = None
    group: str | None = None
    pair: str | None = None


@dataclass(frozen=True)
class ParsedTable:
    """The parts of a concept that its rows determine, named like the fields of `Concept`."""

    examples: tuple[Example, ...]
    kind: TargetKind
    classes: tuple[str, ...]
    position: Position
    answers: tuple[Answer, ...]


def parse_table(table: DataTable, columns: Columns, position: Position | None, kind: TargetKind | None) -> ParsedTable:
    """Read examples and answers from the rows; `position` and `kind` take precedence over the columns of that name.

    Raises:
        BadInput: a missing column, an empty or impossible cell, labels whose kind is unclear.
    """
    text = _column(table, columns.text, ("text", "statement"), "text")
    label = _column(table, columns.label, ("label", "target"), "label")
    texts = [_text(row.cells.get(text), text, table, row) for row in table.rows]
    kind, classes, targets = _targets(table, label, kind or _kind(table))
    written = _constant_value(table, "position")
    pairs = _names(table, columns.pair, "pair")
    groups = _groups(table, columns.group, texts, pairs)
    examples = tuple(
        Example(text, target, group, pair, _span(table, row, text), _cell(row, "type"))
        for text, target, group, pair, row in zip(texts, targets, groups, pairs, table.rows, strict=True)
    )
    position = position or (Position.parse(written) if written else last)
    return ParsedTable(examples, kind, classes, position, _answers(table, groups))


def _column(table: DataTable, given: str | None, usual: tuple[str, ...], argument: str) -> str:
    names = [name for name in ((given,) if given else usual) if name in table.columns]
    if len(names) == 1:
        return names[0]
    if names:
        raise BadInput(
            f"{table.where} has both columns {' and '.join(map(repr, names))}: name the right one with `{argument}`, or rename the other.",
            argument=argument,
        )
    wanted = repr(given) if given else " or ".join(map(repr, usual))
    raise BadInput(
        f"{table.where} has no column {wanted}, only {', '.join(map(repr, table.columns))}: name the column with `{argument}`, or rename "
        "it.",
        argument=argument,
    )


def _text(cell: Any, column: str, table: DataTable, row: DataRow) -> str:
    if isinstance(cell, str) and cell.strip():
        return cell
    problem = "is empty" if cell is None else f"must be a string, got {cell!r}"
    raise BadInput(f"{table.where}, {row.line}: the {column} {problem}: fix or remove the row.")


def _cell(row: DataRow, column: str) -> str | None:
    value = row.cells.get(column)
    return None if value is None else str(value)


def _constant_value(table: DataTable, column: str) -> str | None:
    """The value of a column that is equal in all rows."""
    values = {value.strip() for row in table.rows if (value := _cell(row, column)) is not None}
    if len(values) > 1:
        raise BadInput(
            f"{table.where}: the column {column!r} must be the same in all rows, got {', '.join(sorted(values)[:3])}."
        )
    return values.pop() if values else None


def _kind(table: DataTable) -> TargetKind | None:
    """The kind that the column `kind` states; many data sets have a column of that name with another meaning."""
    if not {_cell(row, "kind") for row in table.rows} & set(get_args(TargetKind)):
        return None
    return _constant_value(table, "kind")  # type: ignore[return-value]


def _names(table: DataTable, given: str | None, usual: str) -> list[str | None]:
    column = _column(table, given, (usual,), usual) if given else usual
    return [_cell(row, column) for row in table.rows]


def _groups(table: DataTable, given: str | None, texts: Sequence[str], pairs: Sequence[str | None]) -> list[str]:
    names = _names(table, given, "group")
    if given is None and "group" not in table.columns:
        return derive_groups(texts, pairs)
    for row, name in zip(table.rows, names, strict=True):
        if name is None:
            raise BadInput(
                f"{table.where}, {row.line}: the group is empty: give each row one, or remove the column {given or 'group'!r}."
            )
    return [name for name in names if name is not None]


def _targets(table: DataTable, column: str, kind: TargetKind | None) -> _Targets:
    labels = [_label(row.cells.get(column), column, table, row) for row in table.rows]
    values = set(labels)
    for pair in _BINARY:
        if kind in (None, "binary") and values <= pair.keys():
            return "binary", (), [pair[label] for label in labels]
    numbers = {value for value in values if _NUMBER.fullmatch(value)}
    if numbers and numbers != values and kind != "classes":
        row, word = next((r, v) for r, v in zip(table.rows, labels, strict=True) if v not in numbers)
        raise BadInput(
            f"{table.where}, {row.line}: labels must be all numbers or all words, got {word!r} beside {min(numbers)}: write all in one way."
        )
    if numbers == values:
        return _number_targets(table, labels, kind)
    return _class_targets(table, labels, sorted(values), kind)


def _label(cell: Any, column: str, table: DataTable, row: DataRow) -> str:
    """The label as a CSV file would spell it."""
    if cell is None:
        raise BadInput(f"{table.where}, {row.line}: the {column} is empty: give a label, or remove the row.")
    if isinstance(cell, list | dict):
        raise BadInput(
            f"{table.where}, {row.line}: the {column} must be one word or number, got a {type(cell).__name__}."
        )
    value = str(cell).strip()
    return value.lower() if value.lower() in ("true", "false", "yes", "no") else value


def _number_targets(table: DataTable, labels: list[str], kind: TargetKind | None) -> _Targets:
    for row, label in zip(table.rows, labels, strict=True):
        if not math.isfinite(float(label)):
            raise BadInput(
                f"{table.where}, {row.line}: the label must be a finite number, got {label}: remove the row."
            )
    values = sorted(set(labels), key=float)
    integers = all(re.fullmatch(r"[-+]?\d+", value) for value in values)
    few = integers and len(values) <= 10
    if kind == "number" or (kind is None and (len(values) > 30 or (len(values) > 10 and not integers))):
        return "number", (), [float(label) for label in labels]
    if kind is None and not few and len(values) > 1:
        raise BadInput(
            f"{table.where}: {len(values)} different labels like {values[0]} and {values[1]} may be classes or numbers: write names for "
            "classes (c1, c2), or add a column 'kind' with the value classes or number."
        )
    return _class_targets(table, labels, values, kind)


def _class_targets(table: DataTable, labels: list[str], values: list[str], kind: TargetKind | None) -> _Targets:
    if kind == "number":
        raise BadInput(f"{table.where}: the labels must be numbers, got words like {values[0]!r}.")
    if kind == "binary" and len(values) > 2:
        raise BadInput(
            f"{table.where}: a binary concept must have two labels, got {len(values)}: {', '.join(values[:4])}, …."
        )
    if len(values) > 50:
        raise BadInput(
            f"{table.where}: there must be at most 50 classes, got {len(values)} labels like {values[0]!r}: check that `label` names the "
            "right column."
        )
    if len(values) <= 2 and kind != "classes":
        return "binary", tuple(values) if len(values) == 2 else (), [label == values[-1] for label in labels]
    rare, count = min(Counter(labels).items(), key=lambda item: item[1])
    if count < 2:
        raise BadInput(
            f"{table.where}: a class must have at least 2 examples, to be learned and tested, got 1 of {rare!r}: add some, or remove it."
        )
    return "classes", tuple(values), [values.index(label) for label in labels]


def _span(table: DataTable, row: DataRow, text: str) -> tuple[int, int] | None:
    part, start, end = (row.cells.get(column) for column in ("span", "span_start", "span_end"))
    where = f"{table.where}, {row.line}"
    if part is None and start is None and end is None:
        return None
    if part is not None and (start is not None or end is not None):
        raise BadInput(f"{where}: both a span and span_start, span_end are given: give only one of the two.")
    if part is not None:
        part = str(part)
        if (count := text.count(part)) != 1:
            raise BadInput(
                f"{where}: the span {part!r} must occur once in the text, got {count} times: give span_start and span_end instead."
            )
        return text.index(part), text.index(part) + len(part)
    try:
        first, past = int(str(start)), int(str(end))
    except ValueError:
        raise BadInput(f"{where}: span_start and span_end must be whole numbers, got {start!r} and {end!r}.") from None
    if not 0 <= first < past <= len(text):
        raise BadInput(
            f"{where}: the span must lie inside the text of {len(text)} characters, got {first}–{past} (the end is one past the last)."
        )
    return first, past


def _answers(table: DataTable, groups: Sequence[str]) -> tuple[Answer, ...]:
    columns = ("prompt", "right", "wrong")
    missing = [column for column in columns if column not in table.columns]
    if {"right", "wrong"} <= set(missing):
        return ()
    if missing:
        raise BadInput(f"{table.where}: answers need the columns prompt, right and wrong: add {missing[0]!r}.")
    answers: dict[Answer, None] = {}
    for row, group in zip(table.rows, groups, strict=True):
        cells = [_cell(row, column) for column in columns]
        match cells:
            case [None, None, None]:
                continue
            case [str(prompt), str(right), str(wrong)]:
                # The rows of one group often repeat a question: each counts once.
                answers[Answer(prompt, right, wrong, group)] = None
            case _:
                raise BadInput(
                    f"{table.where}, {row.line}: an answer needs prompt, right and wrong: fill all three or none."
                )
    return tuple(answers)
