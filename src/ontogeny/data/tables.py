"""From a file of examples to a table of rows: CSV, TSV or JSONL (one object a line), UTF-8, plain or gzip.

Strict on purpose: an open quote, a row of another length or a doubled header silently moves labels to other texts.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    import pandas

MAX_FILE_BYTES = 2**30
"""Bytes of text that are read: a file packed a thousand times must not take all memory when it is opened."""
_FORMATS = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class DataRow:
    line: str
    """Where it stands: 'line 12'."""
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class DataTable:
    where: str
    """The file's name, for messages."""
    columns: tuple[str, ...]
    rows: tuple[DataRow, ...]


def file_stem(path: str | Path) -> str:
    """The file's name without its folder and endings: data/truth.csv.gz is truth."""
    return Path(path).name.removesuffix(".gz").rsplit(".", 1)[0]


def read_table(path: str | Path) -> DataTable:
    """All rows of the file.

    Raises:
        BadInput: no such file, another format, not UTF-8, not well formed, or empty.
    """
    path = Path(path).expanduser()
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in _FORMATS:
        raise BadInput(f"{path} has the ending {suffix!r}. A concept is read from {', '.join(_FORMATS)}, plain or .gz.")
    text = _text(path)
    if not text.strip():
        raise BadInput(f"{path} is empty. A concept file has the columns text and label.")
    table = (
        _jsonl(text, str(path))
        if suffix == ".jsonl"
        else _separated(text, str(path), "\t" if suffix == ".tsv" else ",")
    )
    if not table.rows:
        raise BadInput(f"{path} has a header and no rows.")
    return table


def table_from_frame(frame: "pandas.DataFrame") -> DataTable:
    """The rows of a data frame; missing values are None."""
    columns = tuple(map(str, frame.columns))
    _check_unique_columns(columns, "the data frame")
    values = frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None)
    rows = (DataRow(f"row {i}", dict(zip(columns, cells, strict=True))) for i, cells in enumerate(values))
    return DataTable("the data frame", columns, tuple(rows))


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise BadInput(f"{path} is no regular file, and might never end. Copy it into one.")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"no file {path}. Give the path of a concept file, or the name of a built-in concept.") from None
    except IsADirectoryError:
        raise BadInput(f"{path} is a folder, not a concept file.") from None
    except OSError as fault:
        raise BadInput(f"{path} cannot be read: {fault.strerror}.") from None
    if raw[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
                raw = packed.read(MAX_FILE_BYTES + 1)
        except (OSError, EOFError, zlib.error):
            raise BadInput(
                f"{path} is damaged: its gzip data end early or do not match their checksum. Fetch it again."
            ) from None
    if len(raw) > MAX_FILE_BYTES:
        raise BadInput(f"{path} holds more than {MAX_FILE_BYTES // 2**20} MiB of text. Cut it into several files.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise BadInput(f"{path} is not UTF-8 text (byte {fault.start + 1}). Save it as UTF-8.") from None
    if "\0" in text:
        raise BadInput(f"{path} is a binary file, not text. A concept is read from {', '.join(_FORMATS)}.")
    return text


def _separated(text: str, where: str, delimiter: str) -> DataTable:
    records = _records(text, where, delimiter)
    _, header = next(records)
    columns = tuple(name.strip() for name in header)
    _check_unique_columns(columns, where)
    rows = []
    for line, cells in records:
        if len(cells) != len(columns):
            raise BadInput(
                f"{where}, line {line}: {len(cells)} cells, but the header has {len(columns)} columns. Quote texts that hold "
                f"{'tabs' if delimiter == chr(9) else 'commas'}."
            )
        rows.append(
            DataRow(f"line {line}", {c: cell if cell.strip() else None for c, cell in zip(columns, cells, strict=True)})
        )
    return DataTable(where, columns, tuple(rows))


def _records(text: str, where: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line on which it begins; empty lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as fault:
        raise BadInput(
            f"{where}, line {line}: {fault}. Is a quote left open, or not doubled inside a quoted text?"
        ) from None


def _jsonl(text: str, where: str) -> DataTable:
    rows = []
    columns: dict[str, None] = {}
    # Not splitlines: U+2028 and its like may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line, object_pairs_hook=_reject_duplicate_keys)
        except (ValueError, RecursionError) as fault:
            raise BadInput(f"{where}, line {number}: no valid JSON ({fault}). Each line holds one object.") from None
        if not isinstance(cells, dict):
            raise BadInput(
                f"{where}, line {number}: a {type(cells).__name__}, not an object like {{'text': …, 'label': …}}."
            )
        columns |= dict.fromkeys(cells)
        rows.append(
            DataRow(
                f"line {number}", {c: None if isinstance(v, str) and not v.strip() else v for c, v in cells.items()}
            )
        )
    return DataTable(where, tuple(columns), tuple(rows))


def _reject_duplicate_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    cells = dict(items)
    if len(cells) < len(items):
        raise ValueError("a key stands twice")
    return cells


def _check_unique_columns(columns: tuple[str, ...], where: str) -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise BadInput(
            f"{where}: the header has the column {twice[0]!r} {columns.count(twice[0])} times. Name each column once."
        )
