"""Reading a file of examples as a table: CSV, TSV or JSONL (one object per line), UTF-8, plain or gzip.

Parsing is strict: an open quote, a row of another length or a repeated column name would silently move labels to other texts.
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

_MAX_FILE_BYTES = 2**30
"""Largest uncompressed size, so that a highly compressed file cannot fill the memory."""
_FORMATS = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class DataRow:
    line: str
    """Place of the row for messages, such as 'line 12'."""
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class DataTable:
    where: str
    """Name of the file, for messages."""
    columns: tuple[str, ...]
    rows: tuple[DataRow, ...]


def file_stem(path: str | Path) -> str:
    """Name of a file without folder and endings: `truth` for data/truth.csv.gz."""
    return Path(path).name.removesuffix(".gz").rsplit(".", 1)[0]


def read_table(path: str | Path) -> DataTable:
    """Read all rows of a file.

    Raises:
        BadInput: the file is missing, of another format, not UTF-8, malformed, or empty.
    """
    path = Path(path).expanduser()
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in _FORMATS:
        raise BadInput(f"{path} must end in {', '.join(_FORMATS)}, plain or .gz, got {suffix!r}.")
    text = _text(path)
    if not text.strip():
        raise BadInput(f"{path} is empty: a concept file needs the columns text and label.")
    table = (
        _jsonl(text, str(path))
        if suffix == ".jsonl"
        else _separated(text, str(path), "\t" if suffix == ".tsv" else ",")
    )
    if not table.rows:
        raise BadInput(f"{path} has a header but no rows: add examples.")
    return table


def table_from_frame(frame: "pandas.DataFrame") -> DataTable:
    """Table of a data frame; missing values are None."""
    columns = tuple(map(str, frame.columns))
    _check_unique_columns(columns, "the data frame")
    values = frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None)
    rows = (DataRow(f"row {i}", dict(zip(columns, cells, strict=True))) for i, cells in enumerate(values))
    return DataTable("the data frame", columns, tuple(rows))


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise BadInput(f"{path} must be a regular file: copy its content into one.")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"no file {path}: give the path of a concept file, or the name of a built-in concept.") from None
    except IsADirectoryError:
        raise BadInput(f"{path} must be a concept file, got a folder.") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from None
    try:
        text = gunzip(raw, str(path)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} must be UTF-8 text (byte {error.start + 1} is not): save it as UTF-8.") from None
    if "\0" in text:
        raise BadInput(f"{path} must be a text file in {', '.join(_FORMATS)}, got a binary file.")
    return text


def gunzip(raw: bytes, where: str) -> bytes:
    """Uncompressed content; returned as it is if it is not gzip.

    Raises:
        BadInput: damaged gzip data, or more than `_MAX_FILE_BYTES`.
    """
    if raw[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
                raw = packed.read(_MAX_FILE_BYTES + 1)
        except (OSError, EOFError, zlib.error):
            raise BadInput(
                f"{where} is damaged: its gzip data end early or do not match their checksum: fetch it again."
            ) from None
    if len(raw) > _MAX_FILE_BYTES:
        raise BadInput(f"{where} must not exceed {_MAX_FILE_BYTES // 2**20} MiB of text: split it into several files.")
    return raw


def _separated(text: str, where: str, delimiter: str) -> DataTable:
    records = _records(text, where, delimiter)
    _, header = next(records)
    columns = tuple(name.strip() for name in header)
    _check_unique_columns(columns, where)
    rows = []
    for line, cells in records:
        if len(cells) != len(columns):
            raise BadInput(
                f"{where}, line {line}: {len(cells)} cells, but the header has {len(columns)} columns: quote texts that contain "
                f"{'tabs' if delimiter == chr(9) else 'commas'}."
            )
        rows.append(
            DataRow(f"line {line}", {c: cell if cell.strip() else None for c, cell in zip(columns, cells, strict=True)})
        )
    return DataTable(where, columns, tuple(rows))


def _records(text: str, where: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the number of its first line; empty lines are skipped."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(
            f"{where}, line {line}: {error}: close each quote, and double it inside a quoted text."
        ) from None


def _jsonl(text: str, where: str) -> DataTable:
    rows = []
    columns: dict[str, None] = {}
    # Not splitlines: a JSON string may contain U+2028 and similar separators.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line, object_pairs_hook=_reject_duplicate_keys)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{where}, line {number}: invalid JSON ({error}): write one object per line.") from None
        if not isinstance(cells, dict):
            raise BadInput(
                f"{where}, line {number}: must be an object like {{'text': …, 'label': …}}, got a {type(cells).__name__}."
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
        raise ValueError("a key is repeated")
    return cells


def _check_unique_columns(columns: tuple[str, ...], where: str) -> None:
    for name in sorted(columns):
        if (count := columns.count(name)) > 1:
            raise BadInput(f"{where}: the header has the column {name!r} {count} times: give each column its own name.")
