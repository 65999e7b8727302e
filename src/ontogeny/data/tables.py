"""Reading examples as a table: CSV, TSV, JSON, JSONL or Parquet, a folder of `datasets`, or a data set of the Hugging Face Hub.

Text files are UTF-8, or UTF-16 with a byte-order mark, plain or gzip; the header shows whether commas, semicolons, tabs or bars separate
the cells. Parsing is strict: an open quote, a row of another length or a repeated column name would silently move labels to other texts.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ontogeny.errors import BadInput

if TYPE_CHECKING:
    import pandas

_MAX_FILE_BYTES = 2**30
"""Largest uncompressed size, so that a highly compressed file cannot fill the memory."""
_TEXT_FORMATS = (".csv", ".tsv", ".jsonl", ".json")
_FORMATS = (*_TEXT_FORMATS, ".parquet")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_HUB_DATASET = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(:(?P<split>[\w.-]+))?")
_SAVED_DATASET_FILES = ("dataset_info.json", "dataset_dict.json")
_EMPTY_WORDS = frozenset(
    ("nan", "NaN", "NaT", "<NA>", "None", "NULL", "#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!")
)


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
    positive: str | None = None
    """Label of the positive class, if the format states it."""

    def without(self, columns: Sequence[str]) -> "DataTable":
        """The table without some columns.

        Raises:
            BadInput: a column is not there.
        """
        if missing := [name for name in columns if name not in self.columns]:
            raise BadInput(
                f"{self.where} has no column {missing[0]!r}, only {', '.join(map(repr, self.columns))}: correct `ignore`.",
                argument="ignore",
            )
        kept = tuple(name for name in self.columns if name not in columns)
        rows = (DataRow(row.line, {c: v for c, v in row.cells.items() if c in kept}) for row in self.rows)
        return replace(self, columns=kept, rows=tuple(rows))


def file_stem(path: str | Path) -> str:
    """Name of a file without folder and endings: `truth` for data/truth.csv.gz, `sst2` for stanfordnlp/sst2:train."""
    return Path(path).name.split(":")[0].removesuffix(".gz").rsplit(".", 1)[0]


def is_table_file(path: Path) -> bool:
    """Whether the name has the ending of a table."""
    return path.name.lower().removesuffix(".gz").endswith(_FORMATS)


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by `datasets.save_to_disk`."""
    return any((path / name).is_file() for name in _SAVED_DATASET_FILES)


def is_empty_word(cell: object) -> bool:
    """Whether a string is what other programs write for an empty cell: nan, None, NULL, …"""
    return isinstance(cell, str) and cell.strip() in _EMPTY_WORDS


def read_table(path: str | Path) -> DataTable:
    """Read all rows of a file, of a folder of `datasets.save_to_disk`, or of a data set of the Hub: OWNER/NAME or OWNER/NAME:SPLIT.

    Raises:
        BadInput: the file is missing, of another format, not UTF-8, malformed, or empty.
    """
    path = Path(path).expanduser()
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if path.is_dir() and is_saved_dataset(path):
        table = _saved_dataset(path)
    elif suffix not in _FORMATS and not path.exists() and (hub := _HUB_DATASET.fullmatch(path.as_posix())):
        table = _hub_dataset(hub["name"], hub["split"])
    elif suffix not in _FORMATS:
        named = "a folder that datasets.save_to_disk did not write" if path.is_dir() else repr(suffix)
        raise BadInput(f"{path} must end in {', '.join(_FORMATS)}, text files plain or .gz, got {named}.")
    elif suffix == ".parquet":
        table = parquet_table(path)
    else:
        text = _text(path)
        if not text.strip():
            raise BadInput(f"{path} is empty: a concept file needs the columns text and label.")
        table = table_from_text(text, str(path), suffix)
    if not table.rows:
        raise BadInput(f"{path} has a header but no rows: add examples.")
    return table


def table_from_text(text: str, where: str, suffix: str) -> DataTable:
    """The table in the text of a CSV, TSV, JSON or JSONL file.

    Raises:
        BadInput: the text is malformed.
    """
    if suffix == ".json" and text.lstrip()[:1] == "[":
        return _json_list(text, where)
    if suffix in (".json", ".jsonl"):
        return _jsonl(text, where)
    return _separated(text, where, "\t" if suffix == ".tsv" else ",")


def parquet_table(path: Path) -> DataTable:
    """The table in a Parquet file; lists and structs are Python lists and dictionaries.

    Raises:
        BadInput: the file is missing or damaged.
    """
    import duckdb

    if not path.is_file():
        raise BadInput(f"no file {path}: give the path of a Parquet file.")
    try:
        # The file is read by its handle: a path with * or [ would be a pattern.
        with path.open("rb") as file:
            relation = duckdb.connect().read_parquet(file)
            columns, rows = tuple(relation.columns), relation.fetchall()
    except (duckdb.Error, OSError) as error:
        raise BadInput(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}): write it again.") from None
    return _table_of_rows(str(path), columns, (dict(zip(columns, row, strict=True)) for row in rows))


def _saved_dataset(path: Path) -> DataTable:
    datasets = _datasets_library(f"{path} is a folder of `datasets.save_to_disk`")
    try:
        return _dataset_table(datasets.load_from_disk(str(path)), str(path), None)
    except BadInput:
        raise
    except Exception as error:  # the library raises errors of many kinds for a damaged folder
        raise BadInput(f"{path} cannot be read as a data set ({_first_line(error)}): save it again.") from None


def _hub_dataset(name: str, split: str | None) -> DataTable:
    datasets = _datasets_library(f"there is no file {name}; as a data set of the Hugging Face Hub it")
    try:
        return _dataset_table(datasets.load_dataset(name), name, split)
    except BadInput:
        raise
    except Exception as error:  # network, repository, configuration: the library has an error for each
        raise BadInput(
            f"the data set {name} of the Hugging Face Hub cannot be read ({_first_line(error)}): check the name and the network, or give a "
            "file."
        ) from None


def _datasets_library(subject: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise BadInput(
            f"{subject} needs the package datasets: run pip install 'ontogeny[train]', or save the rows as Parquet or JSONL with its "
            "methods to_parquet or to_json."
        ) from None
    return datasets


def _dataset_table(dataset: Any, where: str, split: str | None) -> DataTable:
    """The table of a `Dataset`, or of one split of a `DatasetDict`; class numbers are replaced by their names."""
    if hasattr(dataset, "keys"):
        splits = list(dataset.keys())
        split = split or (splits[0] if len(splits) == 1 else "train")
        if split not in splits:
            raise BadInput(f"{where} must have the split {split!r}, got {', '.join(splits)}: write {where}:SPLIT.")
        dataset, where = dataset[split], f"{where}:{split}"
    names = {c: list(f.names) for c, f in dataset.features.items() if getattr(f, "names", None)}
    columns = tuple(dataset.column_names)

    def cell(column: str, value: Any) -> Any:
        known = names.get(column)
        return known[value] if known and isinstance(value, int) and 0 <= value < len(known) else value

    table = _table_of_rows(where, columns, ({c: cell(c, v) for c, v in row.items()} for row in dataset))
    two = next((names[c] for c in ("label", "target") if len(names.get(c, ())) == 2), None)
    return replace(table, positive=two[1] if two else None)


def _table_of_rows(where: str, columns: tuple[str, ...], rows: Iterator[Mapping[str, Any]]) -> DataTable:
    """Table of parsed rows; blank strings and NaN are None."""
    _check_unique_columns(columns, where)
    return DataTable(where, columns, tuple(DataRow(f"row {i}", _cells(row)) for i, row in enumerate(rows, 1)))


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {c: None if isinstance(v, str) and not v.strip() else v for c, v in row.items()}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"


def table_from_frame(frame: "pandas.DataFrame") -> DataTable:
    """Table of a data frame; missing values are None.

    Raises:
        BadInput: it has no rows, or a repeated column.
    """
    if not len(frame):
        raise BadInput("the data frame has no rows: add examples.")
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
    text = decode_text(gunzip(raw, str(path)), str(path))
    if "\0" in text:
        raise BadInput(f"{path} must be a text file in {', '.join(_TEXT_FORMATS)}, got a binary file.")
    return text


def decode_text(raw: bytes, where: str) -> str:
    """The text of a file: UTF-8 with or without a byte-order mark, or UTF-16 with one.

    Raises:
        BadInput: it is in another encoding.
    """
    wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{where} must be UTF-8 text (byte {error.start + 1} is not): save it as UTF-8.") from None


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


def _separated(text: str, where: str, usual: str) -> DataTable:
    # Excel may write the delimiter in a line of its own before the header.
    stated = re.match(r"sep=(.)\r?\n", text)
    text = text[stated.end() - 1 :] if stated else text
    delimiter = stated[1] if stated else _delimiter(text, usual)
    _check_quotes(text, where, delimiter)
    records = _records(text, where, delimiter)
    _, header = next(records, (1, []))
    if not header:
        raise BadInput(f"{where} is empty: a table needs a header and rows.")
    columns = tuple(name.strip() for name in header)
    _check_unique_columns(columns, where)
    rows = []
    for line, cells in records:
        if len(cells) != len(columns):
            raise BadInput(
                f"{where}, line {line}: {len(cells)} cells, but the header has {len(columns)} columns: quote texts that contain "
                f"{_DELIMITERS.get(delimiter, repr(delimiter))}."
            )
        rows.append(DataRow(f"line {line}", _cells(dict(zip(columns, cells, strict=True)))))
    return DataTable(where, columns, tuple(rows))


def _delimiter(text: str, usual: str) -> str:
    """The commonest delimiter in the header, outside quotes; `usual` if it is one of them."""
    header = re.sub(r'"[^"]*"', "", re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0])
    return max((usual, *_DELIMITERS), key=header.count)


def _check_quotes(text: str, where: str, delimiter: str) -> None:
    """Refuse quotes after a space, which would become a part of the text: `0, "a text"`."""
    if not re.search(rf'(^|{re.escape(delimiter)}) +"', text, re.MULTILINE):
        return
    spaced = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    for (line, cells), others in zip(
        _records(text, where, delimiter), filter(None, _until_error(spaced)), strict=False
    ):
        if [cell.lstrip() for cell in cells] != [cell.lstrip() for cell in others]:
            raise BadInput(
                f"{where}, line {line}: an opening quote must follow the delimiter directly, got a space: remove it, as in "
                f'0{delimiter}"a text".'
            )


def _until_error(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """Records up to one that cannot be parsed, such as an unquoted text that begins with a quoted word."""
    try:
        yield from reader
    except csv.Error:
        return


def _records(text: str, where: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record with the number of its first line; empty lines are skipped."""
    csv.field_size_limit(_MAX_FILE_BYTES)
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
        rows.append(DataRow(f"line {number}", _cells(cells)))
    return DataTable(where, tuple(columns), tuple(rows))


def _json_list(text: str, where: str) -> DataTable:
    try:
        rows = json.loads(text, object_pairs_hook=_reject_duplicate_keys)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is invalid JSON ({error}): write a list of objects.") from None
    for i, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise BadInput(
                f"{where}, row {i}: must be an object like {{'text': …, 'label': …}}, got a {type(row).__name__}."
            )
    return _table_of_rows(where, tuple(dict.fromkeys(c for row in rows for c in row)), iter(rows))


def _reject_duplicate_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    cells = dict(items)
    if len(cells) < len(items):
        raise ValueError("a key is repeated")
    return cells


def _check_unique_columns(columns: tuple[str, ...], where: str) -> None:
    for name in sorted(columns):
        if (count := columns.count(name)) > 1:
            raise BadInput(f"{where}: the header has the column {name!r} {count} times: give each column its own name.")
