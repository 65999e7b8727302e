"""From the rows of a table to a concept. Columns:

`text` (or `statement`) and `label` (or `target`); if wanted `group`, `pair`, `type`, a marked part as `span` (a substring that stands once)
or `span_start` and `span_end` (characters), an answer as `prompt`, `right` and `wrong`, and `position` and `kind`, equal in all rows.

Labels: 0 and 1, true and false, or yes and no make a binary concept. So do two other strings or two integers: the second in order is the
positive one, and their names are kept. Up to 50 strings, or up to 10 integers, make classes. Numbers are read as a number to be predicted
if there are more than 30 different ones, or more than 10 and at least one is written with a decimal point. All between is unclear, and
refused: write names for classes, or state the kind.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ontogeny.data.concept import Concept
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


@dataclass(frozen=True)
class Columns:
    """Names that the user gives for columns that are called otherwise."""

    text: str | None = None
    label: str | None = None
    group: str | None = None
    pair: str | None = None


def concept_from_rows(
    table: DataTable, name: str, columns: Columns, *, position: Position | None = None, kind: TargetKind | None = None
) -> Concept:
    """The concept that the rows tell.

    Raises:
        BadInput: a missing column, an empty or impossible cell, labels whose kind is unclear.
    """
    text = _column(table, columns.text, ("text", "statement"), "text")
    label = _column(table, columns.label, ("label", "target"), "label")
    texts = [_text(row.cells.get(text), text, table, row) for row in table.rows]
    kind, classes, targets = _targets(table, label, kind or _kind(table))
    named = _constant_value(table, "position")
    pairs = _names(table, columns.pair, "pair")
    groups = _groups(table, columns.group, texts, pairs)
    examples = [
        Example(words, target, group, pair, _span(table, row, words), _cell(row, "type"))
        for words, target, group, pair, row in zip(texts, targets, groups, pairs, table.rows, strict=True)
    ]
    where = position or (Position.parse(named) if named else last)
    return Concept(name, tuple(examples), kind, classes, where, _answers(table, groups))


def _column(table: DataTable, given: str | None, usual: tuple[str, ...], what: str) -> str:
    found = [name for name in ((given,) if given else usual) if name in table.columns]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(
            f"{table.where} has both columns {' and '.join(map(repr, found))}. Rename the one not meant, or name the one meant: "
            f"--{what} COLUMN, from Python {what}='…'."
        )
    wanted = repr(given) if given else " or ".join(map(repr, usual))
    raise BadInput(
        f"{table.where} has no column {wanted}, only {', '.join(map(repr, table.columns))}. Rename one, or name it: --{what} COLUMN, from "
        f"Python {what}='…'."
    )


def _text(cell: Any, column: str, table: DataTable, row: DataRow) -> str:
    if isinstance(cell, str) and cell.strip():
        return cell
    told = "is empty" if cell is None else f"is {cell!r}, not a text"
    raise BadInput(f"{table.where}, {row.line}: the {column} {told}. Remove or mend the row.")


def _cell(row: DataRow, column: str) -> str | None:
    value = row.cells.get(column)
    return None if value is None else str(value)


def _constant_value(table: DataTable, column: str) -> str | None:
    """The one value that a column has in all rows."""
    values = {value.strip() for row in table.rows if (value := _cell(row, column)) is not None}
    if len(values) > 1:
        raise BadInput(
            f"{table.where}: the column {column!r} must be the same in all rows, and holds {', '.join(sorted(values)[:3])}."
        )
    return values.pop() if values else None


def _kind(table: DataTable) -> TargetKind | None:
    """What the column `kind` says; many data sets have a column of that name that means something else."""
    if not {_cell(row, "kind") for row in table.rows} & set(get_args(TargetKind)):
        return None
    return _constant_value(table, "kind")  # type: ignore[return-value]


def _names(table: DataTable, given: str | None, usual: str) -> list[str | None]:
    column = _column(table, given, (usual,), usual) if given else usual
    return [_cell(row, column) for row in table.rows]


def _groups(table: DataTable, given: str | None, texts: Sequence[str], pairs: Sequence[str | None]) -> list[str]:
    named = _names(table, given, "group")
    if given is None and "group" not in table.columns:
        return derive_groups(texts, pairs)
    groups = []
    for row, group in zip(table.rows, named, strict=True):
        if group is None:
            raise BadInput(
                f"{table.where}, {row.line}: no group. Give each row one, or leave the column {given or 'group'!r} out."
            )
        groups.append(group)
    return groups


def _targets(table: DataTable, column: str, kind: TargetKind | None) -> tuple[TargetKind, tuple[str, ...], list[Any]]:
    told = [_label(row.cells.get(column), column, table, row) for row in table.rows]
    values = set(told)
    for pair in _BINARY:
        if kind in (None, "binary") and values <= pair.keys():
            return "binary", (), [pair[value] for value in told]
    numbers = {value for value in values if _NUMBER.fullmatch(value)}
    if numbers and numbers != values and kind != "classes":
        row, odd = next((r, v) for r, v in zip(table.rows, told, strict=True) if v not in numbers)
        raise BadInput(
            f"{table.where}, {row.line}: the label {odd!r} stands among numbers like {min(numbers)}. Write all in one way."
        )
    if numbers == values:
        return _number_targets(table, told, kind)
    return _class_targets(table, told, sorted(values), kind)


def _label(cell: Any, column: str, table: DataTable, row: DataRow) -> str:
    """The label as it would stand in a CSV file."""
    if cell is None:
        raise BadInput(f"{table.where}, {row.line}: the {column} is empty. Remove the row, or give its label.")
    if isinstance(cell, list | dict):
        raise BadInput(
            f"{table.where}, {row.line}: the {column} is a {type(cell).__name__}. A label is one word or number."
        )
    value = str(cell).strip()
    return value.lower() if value.lower() in ("true", "false", "yes", "no") else value


def _number_targets(
    table: DataTable, told: list[str], kind: TargetKind | None
) -> tuple[TargetKind, tuple[str, ...], list[Any]]:
    for row, value in zip(table.rows, told, strict=True):
        if not math.isfinite(float(value)):
            raise BadInput(
                f"{table.where}, {row.line}: the label is {value}. Remove the row: a missing target cannot be read."
            )
    values = sorted(set(told), key=float)
    integers = all(re.fullmatch(r"[-+]?\d+", value) for value in values)
    few = integers and len(values) <= 10
    if kind == "number" or (kind is None and (len(values) > 30 or (len(values) > 10 and not integers))):
        return "number", (), [float(value) for value in told]
    if kind is None and not few and len(values) > 1:
        raise BadInput(
            f"{table.where}: {len(values)} different labels like {values[0]} and {values[1]} may be classes or numbers. Write names for "
            "classes (c1, c2), or add a column 'kind' that says classes or number."
        )
    return _class_targets(table, told, values, kind)


def _class_targets(
    table: DataTable, told: list[str], values: list[str], kind: TargetKind | None
) -> tuple[TargetKind, tuple[str, ...], list[Any]]:
    if kind == "number":
        raise BadInput(f"{table.where}: the labels are words like {values[0]!r}, not numbers.")
    if kind == "binary" and len(values) > 2:
        raise BadInput(
            f"{table.where}: a binary concept has two labels, and there are {len(values)}: {', '.join(values[:4])}, …."
        )
    if len(values) > 50:
        raise BadInput(
            f"{table.where}: {len(values)} different labels like {values[0]!r} are no classes (at most 50). Is it the right column?"
        )
    if len(values) <= 2 and kind != "classes":
        return "binary", tuple(values) if len(values) == 2 else (), [value == values[-1] for value in told]
    rare = min(Counter(told).items(), key=lambda item: item[1])
    if rare[1] < 2:
        raise BadInput(
            f"{table.where}: the class {rare[0]!r} has one example, and needs 2 to be learned and tested. Add some, or remove it."
        )
    return "classes", tuple(values), [values.index(value) for value in told]


def _span(table: DataTable, row: DataRow, text: str) -> tuple[int, int] | None:
    part, start, end = (row.cells.get(column) for column in ("span", "span_start", "span_end"))
    told = f"{table.where}, {row.line}"
    if part is None and start is None and end is None:
        return None
    if part is not None and (start is not None or end is not None):
        raise BadInput(f"{told}: both `span` and `span_start`, `span_end`. Give one of the two.")
    if part is not None:
        if (count := text.count(str(part))) != 1:
            raise BadInput(
                f"{told}: the span {str(part)!r} stands {count} times in the text. Give span_start and span_end instead."
            )
        return text.index(str(part)), text.index(str(part)) + len(str(part))
    try:
        first, past = int(str(start)), int(str(end))
    except ValueError:
        raise BadInput(f"{told}: span_start {start!r} and span_end {end!r} are not two whole numbers.") from None
    if not 0 <= first < past <= len(text):
        raise BadInput(
            f"{told}: the span {first}–{past} lies outside the text of {len(text)} characters (the end is one past the last)."
        )
    return first, past


def _answers(table: DataTable, groups: Sequence[str]) -> tuple[Answer, ...]:
    missing = [column for column in ("prompt", "right", "wrong") if column not in table.columns]
    if {"right", "wrong"} <= set(missing):
        return ()
    if missing:
        raise BadInput(f"{table.where}: answers need the columns prompt, right and wrong; {missing[0]!r} is missing.")
    found: dict[Answer, None] = {}
    for row, group in zip(table.rows, groups, strict=True):
        prompt, right, wrong = (_cell(row, column) for column in ("prompt", "right", "wrong"))
        if prompt is None and right is None and wrong is None:
            continue
        if prompt is None or right is None or wrong is None:
            raise BadInput(
                f"{table.where}, {row.line}: an answer needs all of prompt, right and wrong. Fill all three or none."
            )
        # The rows of one group often ask the same: each question counts once.
        found[Answer(prompt, right, wrong, group)] = None
    return tuple(found)
