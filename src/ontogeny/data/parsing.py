"""Parsing a table of examples into the parts of a concept.

Columns: `text` (or `statement`, or a chat as `messages` or `conversations`) and `label` (or `target`). Optional: `group`, `pair`, `type`
(of word, for the control task); a marked part as `span` (a substring that occurs once) or `span_start` and `span_end` (characters); an
answer as `prompt`, `right` and `wrong`; `position`, `kind` and `positive`, equal in all rows.

Labels: 0 and 1, true and false, or yes and no make a binary concept. So do two other strings or two integers, whose names are kept. The
positive class is, in this order: the stated one; the larger integer; a word such as correct or toxic, or the word that the other one
negates (matching, not_matching); the first label of the file. Up to 50 strings, or up to 10 integers, make classes. More than 30
different numbers make a numeric target, and so do more than 10 if at least one has a decimal point. All other labels are ambiguous and
rejected: write names for classes, or state the kind. Markers of missing labels (-1 or 99 beside 0 and 1, N/A, one more word beside true
and false) are rejected, too, and so are labels that differ in no visible character.
"""

import ast
import contextlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from ontogeny.data.chats import CHAT_COLUMNS, Chat, chat_text, is_chat, parse_chat
from ontogeny.data.examples import Answer, Example, TargetKind
from ontogeny.data.grouping import derive_groups
from ontogeny.data.tables import DataRow, DataTable, is_empty_word
from ontogeny.errors import BadInput

if TYPE_CHECKING:
    from ontogeny.data.positions import Position

_BINARY = (
    {"0": False, "1": True},
    {"0.0": False, "1.0": True},
    {"false": False, "true": True},
    {"no": False, "yes": True},
)
_TRUTH_WORDS = frozenset(("true", "false", "yes", "no", "y", "n", "t", "f"))
_MISSING_WORDS = frozenset(
    (
        "n/a",
        "na",
        "#n/a",
        "<na>",
        "nan",
        "null",
        "nil",
        "?",
        "-",
        "--",
        "missing",
        "unlabeled",
        "unlabelled",
        "not applicable",
        "undefined",
        "tbd",
        "tba",
        "todo",
        "n.a.",
        "not available",
        "no data",
        "skip",
        "skipped",
        "error",
        "idk",
    )
)
"""Labels, in lower case, that are not classes."""
_MISSING_BESIDE_TRUTH = frozenset(("none", "unknown", "unsure", "undecided", "other"))
"""Labels that are not classes beside a binary pair, and may be one beside other names."""
_MISSING_NUMBERS = frozenset((-1.0, -9.0, -99.0, -100.0, -999.0, -9999.0))
_MISSING_CODES = frozenset((9.0, 88.0, 98.0, 99.0, 999.0, 9999.0))
"""Codes of surveys, which are not classes where the other labels are 0, 1, … without a gap."""
_POSITIVE_WORDS = frozenset(
    ("true", "correct", "positive", "pos", "yes", "good", "harmful", "unsafe", "toxic", "hateful", "spam", "biased")
)
_NEGATIVE_WORDS = frozenset(
    ("false", "incorrect", "wrong", "negative", "neg", "no", "bad", "harmless", "neutral", "normal", "none")
)
_ENDS = ".,;:!\"'“”‘’` "
"""Punctuation that people and models write around a label; `C++` and `C#` keep their own."""
_NEGATIONS = ("non", "not", "no", "un", "in", "im", "ir", "il", "dis", "mis", "anti", "a")
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
    position: "Position"
    answers: tuple[Answer, ...]


def parse_table(
    table: DataTable,
    columns: Columns,
    position: "Position | None",
    kind: TargetKind | None,
    positive: str | None = None,
) -> ParsedTable:
    """Read examples and answers from the rows; `position`, `kind` and `positive` take precedence over the columns of that name.

    Raises:
        BadInput: a missing column, an empty or impossible cell, labels whose kind is unclear.
    """
    examples, kind, classes = _parse_examples(table, columns, kind, positive)
    answers = _answers(table, [example.group for example in examples])
    return ParsedTable(examples, kind, classes, position or _position(table), answers)


def check_table(table: DataTable, columns: Columns, positive: str | None = None) -> None:
    """Check texts, labels and columns without loading torch, before a command loads what it needs.

    Raises:
        BadInput: as `parse_table`, but for the columns `position`, `prompt`, `right` and `wrong`.
    """
    _parse_examples(table, columns, None, positive)


def _parse_examples(
    table: DataTable, columns: Columns, kind: TargetKind | None, positive: str | None
) -> tuple[tuple[Example, ...], TargetKind, tuple[str, ...]]:
    text = _text_column(table, columns.text)
    label = _column(table, columns.label, ("label", "target"), "label")
    chats = _chats(table, text)
    texts = (
        [_text(row.cells.get(text), text, table, row) for row in table.rows]
        if chats is None
        else [chat_text(chat) for chat in chats]
    )
    kind, classes, targets = _targets(table, label, kind or _kind(table), positive)
    pairs = _names(table, columns.pair, "pair")
    groups = _groups(table, columns.group, texts, pairs)
    examples = tuple(
        Example(text, target, group, pair, _span(table, row, text), _cell(row, "type"), chat)
        for text, target, group, pair, row, chat in zip(
            texts, targets, groups, pairs, table.rows, chats or [()] * len(texts), strict=True
        )
    )
    return examples, kind, classes


def _position(table: DataTable) -> "Position":
    from ontogeny.data.positions import Position, last  # loads torch

    written = _constant_value(table, "position")
    try:
        return Position.parse(written) if written else last
    except BadInput as error:
        raise BadInput(
            f"{table.where}: the column 'position' is {_MEANING['position']}: {error} Else {_WAY_OUT[3:]}."
        ) from None


def _text_column(table: DataTable, given: str | None) -> str:
    chat = next((name for name in CHAT_COLUMNS if name in table.columns), None)
    plain = sorted({"text", "statement"} & set(table.columns))
    if given is None and chat and not plain:
        return chat
    if given is None and chat and is_chat(table.rows[0].cells.get(chat)):
        raise BadInput(
            f"{table.where} has both columns {plain[0]!r} and {chat!r}, a text and a chat: name the right one with `text`, or leave the "
            "other out with `ignore`.",
            argument="text",
        )
    return _column(table, given, ("text", "statement"), "text")


def _chats(table: DataTable, column: str) -> list[Chat] | None:
    """The chats of a column; None if it holds plain texts."""
    if column not in CHAT_COLUMNS and not is_chat(table.rows[0].cells.get(column)):
        return None
    chats = []
    for row in table.rows:
        try:
            chats.append(parse_chat(row.cells.get(column)))
        except BadInput as error:
            raise BadInput(f"{table.where}, {row.line}: {column}: {error}") from None
    return chats


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
        f"{table.where} has no column {wanted}, only {_shown(table.columns)}: name the column with `{argument}`, or rename "
        "it.",
        argument=argument,
    )


def _shown(columns: Sequence[str]) -> str:
    first = ", ".join(repr(name[:40]) for name in columns[:8])
    return first if len(columns) <= 8 else f"{first} and {len(columns) - 8} more"


def _text(cell: Any, column: str, table: DataTable, row: DataRow) -> str:
    visible = isinstance(cell, str) and any(not c.isspace() and unicodedata.category(c) != "Cf" for c in cell)
    if isinstance(cell, str) and visible and not is_empty_word(cell):
        return cell
    problem = "is empty" if cell is None or isinstance(cell, str) else f"must be a string, got {cell!r}"
    if is_empty_word(cell):
        problem = f"is {cell.strip()!r}, which programs write for an empty cell"
    raise BadInput(f"{table.where}, {row.line}: the {column} {problem}: fix or remove the row.")


def _cell(row: DataRow, column: str) -> str | None:
    value = row.cells.get(column)
    return None if value is None or value != value else str(value)


_MEANING = {
    "position": "taken for the read position (last, mean:span, …)",
    "kind": "taken for the kind of target (binary, classes, number)",
    "span": "taken for the part of the text that carries the concept",
}


_WAY_OUT = "if it means something else, rename or remove the column, or leave it out with `ignore`"


_OTHER_KINDS = frozenset(("regression", "classification", "multiclass", "class", "numeric", "numbers", "continuous"))
"""Other words for a kind of target."""


def _constant_value(table: DataTable, column: str) -> str | None:
    """The value of a column that is equal in all rows."""
    values = {value.strip() for row in table.rows if (value := _cell(row, column)) is not None}
    if len(values) > 1:
        raise BadInput(
            f"{table.where}: the column {column!r} is {_MEANING[column]} and must be the same in all rows, got "
            f"{', '.join(sorted(values)[:3])}: {_WAY_OUT}."
        )
    return values.pop() if values else None


def _kind(table: DataTable) -> TargetKind | None:
    """The kind that the column `kind` states; many data sets have a column of that name with another meaning."""
    stated = {cell.strip().casefold() for row in table.rows if (cell := _cell(row, "kind")) is not None}
    if stated and stated <= _OTHER_KINDS:
        raise BadInput(
            f"{table.where}: the column 'kind' must be {', '.join(get_args(TargetKind))}, got {min(stated)}: write one of these, "
            f"or, {_WAY_OUT}."
        )
    if not stated & set(get_args(TargetKind)):
        return None
    value = _constant_value(table, "kind")
    return value.casefold() if value else None  # type: ignore[return-value]


def _names(table: DataTable, given: str | None, usual: str) -> list[str | None]:
    column = _column(table, given, (usual,), usual) if given else usual
    names = [None if is_empty_word(name := _cell(row, column)) else name for row in table.rows]
    known = set(names)
    # Beside an empty cell, programs write the number 3 as 3.0.
    return [name[:-2] if name and name.endswith(".0") and name[:-2] in known else name for name in names]


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


def _targets(table: DataTable, column: str, kind: TargetKind | None, positive: str | None) -> _Targets:
    labels = [_label(row.cells.get(column), column, table, row) for row in table.rows]
    values = set(labels)
    positive = _stated_positive(table, values, positive)
    for pair in _BINARY:
        if kind in (None, "binary") and positive is None and values <= pair.keys():
            return "binary", (), [pair[label] for label in labels]
    if kind is None:
        _check_missing(table, labels)
        _check_spelling(table, labels)
    numbers = {value for value in values if _NUMBER.fullmatch(value)}
    if numbers and numbers != values and kind != "classes":
        row, word = next((r, v) for r, v in zip(table.rows, labels, strict=True) if v not in numbers)
        raise BadInput(
            f"{table.where}, {row.line}: labels must be all numbers or all words, got {word!r} beside {min(numbers)}: write all in one way."
        )
    if numbers == values:
        return _number_targets(table, labels, kind, positive)
    return _class_targets(table, labels, sorted(values), kind, positive)


def _stated_positive(table: DataTable, values: set[str], given: str | None) -> str | None:
    """The label of the positive class that the caller, the format or the column `positive` states."""
    if given is not None:
        label = given.lower() if given.lower() in _TRUTH_WORDS and given.lower() in values else given
        if label not in values or len(values) != 2:
            raise BadInput(
                f"{table.where}: `positive` must be one of two labels, got {given!r}: the labels are {', '.join(sorted(values)[:6])}.",
                argument="positive",
            )
        return label
    if table.positive in values:
        return table.positive
    # Data sets of triplets have a column of that name with another meaning.
    stated = {_cell(row, "positive") for row in table.rows}
    return next(iter(stated)) if len(stated) == 1 and len(values) == 2 and stated <= values else None


def _check_missing(table: DataTable, labels: list[str]) -> None:
    """Refuse markers of missing labels beside classes."""
    if set(labels) == {"+", "-"}:
        return
    classes = {label for label in labels if not _is_missing(label)}
    truth = any(classes & pair.keys() for pair in _BINARY)
    # One more label beside a whole pair such as true and false is seldom a class: idk, mixed, both.
    third = next((classes - pair.keys() for pair in _BINARY[2:] if pair.keys() <= classes), set())
    numbers = {float(c) for c in classes if _NUMBER.fullmatch(c)}
    code = _missing_code(labels)
    for row, label in zip(table.rows, labels, strict=True):
        number = float(label) if _NUMBER.fullmatch(label) else None
        is_code = number in _MISSING_NUMBERS and 0.0 in numbers and min(numbers - _MISSING_NUMBERS) >= 0
        is_code = is_code or (number is not None and number == code)
        is_word = number is None and (
            _is_missing(label)
            or (truth and label.lower() in _MISSING_BESIDE_TRUTH)
            or (third == {label} and label.lower() not in _TRUTH_WORDS)
        )
        if (is_code and (len(numbers) <= 12 or number == code)) or (is_word and classes - {label}):
            others = " and ".join(sorted(classes - {label})[:3])
            kind = "classes" if len(numbers) <= 12 else "number"
            raise BadInput(
                f"{table.where}, {row.line}: the label {label} beside {others} looks like a missing one: remove the row, or add a column "
                f"'kind' with the value {kind}."
            )


def _missing_code(labels: Sequence[str]) -> float | None:
    """The number that stands for a missing label: 9 or 99 beside 0 and 1, or -1 and -999 more than once beside measured numbers."""
    if not all(map(_NUMBER.fullmatch, labels)):
        return None
    counts = Counter(map(float, labels))
    low, high = min(counts), max(counts)
    others = sorted(value for value in counts if value != high)
    if (
        high in _MISSING_CODES
        and 2 <= len(others) <= 8
        and others in ([float(i) for i in range(len(others))], [float(i + 1) for i in range(len(others))])
        and high > others[-1] + 1
    ):
        return high
    rest = [value for value in counts if value != low]
    if len(counts) > 12 and low in _MISSING_NUMBERS and counts[low] > 1 and min(rest) >= 0:
        return low
    return None


def _is_missing(label: str) -> bool:
    """Whether a label is a word for a missing one, or nothing but punctuation."""
    return label.lower() in _MISSING_WORDS or all(unicodedata.category(c).startswith("P") for c in label)


def _check_spelling(table: DataTable, labels: list[str]) -> None:
    """Refuse one class that is written in several ways."""
    values = set(labels)
    words = {value for value in values if value.lower() in _TRUTH_WORDS}
    if words == values and len(values) > 2:
        raise BadInput(
            f"{table.where}: labels {', '.join(sorted(values))} mix words for yes and no: write all in one way."
        )
    first: dict[str, str] = {}
    for row, label in zip(table.rows, labels, strict=True):
        if (other := first.setdefault(_folded(label), label)) != label:
            how = "in no visible character"
            if label.casefold() == other.casefold():
                how = "only in case"
            elif label.strip(_ENDS).casefold() == other.strip(_ENDS).casefold():
                how = "only in punctuation"
            raise BadInput(
                f"{table.where}, {row.line}: the labels {label!a} and {other!a} differ {how}: write both in one way."
            )
    if all(re.fullmatch(r"[-+]?\d+,\d+", value) for value in values):
        raise BadInput(
            f"{table.where}: labels like {min(values)} must have a decimal point: write {min(values).replace(',', '.')}."
        )


def _folded(label: str) -> str:
    """The label without case, quotes and full stops around it, and without differences that no reader sees: composed letters, characters
    of no width."""
    plain = unicodedata.normalize("NFKC", label.strip(_ENDS) or label)
    return " ".join("".join(c for c in plain if unicodedata.category(c) != "Cf").split()).casefold()


def _positive_label(labels: Sequence[str]) -> str:
    """The positive one of two words: a known word, the word that the other one negates, else the first in the file."""
    first, second = dict.fromkeys(labels)
    if {first, second} == {"+", "-"}:
        return "+"
    plain = {label: re.sub(r"[^\w]|_", "", label.casefold()) for label in (first, second)}
    for words, is_positive in ((_POSITIVE_WORDS, True), (_NEGATIVE_WORDS, False)):
        if (known := plain[first] in words) != (plain[second] in words):
            return first if known == is_positive else second
    for label, other in ((first, second), (second, first)):
        if any(plain[other] == negation + plain[label] for negation in _NEGATIONS):
            return label
    return first


def _label(cell: Any, column: str, table: DataTable, row: DataRow) -> str:
    """The label as a CSV file would spell it."""
    if cell is None:
        raise BadInput(f"{table.where}, {row.line}: the {column} is empty: give a label, or remove the row.")
    if isinstance(cell, list | dict):
        raise BadInput(
            f"{table.where}, {row.line}: the {column} must be one word or number, got a {type(cell).__name__}."
        )
    value = str(cell).strip()
    if not value.isascii() and _NUMBER.fullmatch(plain := unicodedata.normalize("NFKC", value)):
        value = plain  # digits of full width
    if value[:1] == "[" and value[-1:] == "]":
        raise BadInput(
            f"{table.where}, {row.line}: the {column} must be one word or number, got the list {value[:40]}."
        )
    return value.lower() if value.lower() in ("true", "false", "yes", "no") else value


def _number_targets(table: DataTable, labels: list[str], kind: TargetKind | None, positive: str | None) -> _Targets:
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
    return _class_targets(table, labels, values, kind, positive or values[-1])


def _class_targets(
    table: DataTable, labels: list[str], values: list[str], kind: TargetKind | None, positive: str | None
) -> _Targets:
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
        if len(values) == 2:
            positive = positive or _positive_label(labels)
            values = sorted(values, key=lambda label: label == positive)
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
                f"{where}: the span {part!r} must occur once in the text, got {count} times: give span_start and span_end instead; "
                f"{_WAY_OUT}."
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
        for column in columns:
            _check_one_text(row.cells.get(column), column, f"{table.where}, {row.line}")
        match cells:
            case [None, None, None]:
                continue
            case [str(prompt), str(right), str(wrong)]:
                _check_answer(prompt, right, wrong, f"{table.where}, {row.line}")
                # The rows of one group often repeat a question: each counts once.
                answers[Answer(prompt, right, wrong, group)] = None
            case _:
                raise BadInput(
                    f"{table.where}, {row.line}: an answer needs prompt, right and wrong: fill all three or none."
                )
    return tuple(answers)


def _check_one_text(cell: Any, column: str, where: str) -> None:
    """Refuse several answers in one cell, also those that were written as text: the model would be asked for brackets."""
    several = isinstance(cell, list | dict)
    if isinstance(cell, str) and column != "prompt" and cell.strip()[:1] + cell.strip()[-1:] == "[]":
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            several = isinstance(ast.literal_eval(cell.strip()), list)
    if several:
        raise BadInput(
            f"{where}: the {column} must be one text, got {str(cell)[:40]}: give each answer a row of its own."
        )


def _check_answer(prompt: str, right: str, wrong: str, where: str) -> None:
    if right == wrong or right.strip() == wrong.strip() != "":
        raise BadInput(
            f"{where}: right and wrong must be two answers, got {right!r} twice: correct or remove the question."
        )
    for column, cell in (("prompt", prompt), ("right", right), ("wrong", wrong)):
        if is_empty_word(cell) and (column == "prompt" or cell in ("nan", "NaN", "NaT", "<NA>")):
            raise BadInput(
                f"{where}: the {column} is {cell!r}, which programs write for an empty cell: remove it, or the whole row."
            )
