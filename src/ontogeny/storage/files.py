"""Files of a run: written under a temporary name, then renamed, so that a file that exists is complete."""

import atexit
import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ontogeny.errors import BadInput
from ontogeny.records import RECORD_COLUMNS, Record

_UMASK = os.umask(0o022)
os.umask(_UMASK)
_MODE = 0o666 & ~_UMASK


def content_digest(content: object) -> str:
    """Digest of JSON-able content, 16 hex digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `path` if the block succeeds and removed if it fails.

    Raises:
        BadInput: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.chmod(_MODE)  # safetensors makes files readable by their owner only
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_partial_write(path: Path) -> bool:
    """Whether a file is a temporary file of `atomic_path`, left by a process that was killed."""
    return re.fullmatch(r"\..+\.\d+-\d+\.tmp", path.name) is not None and path.is_file()


def remove_partial_writes(folder: Path, *, lock: str) -> None:
    """Remove the temporary files of killed processes. The caller must hold the folder's lock.

    Folders inside that have a lock, such as a trace below its model, are skipped.
    """
    for inside, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not (Path(inside) / name / lock).exists()]
        for path in (Path(inside) / name for name in files):
            if is_partial_write(path):
                with contextlib.suppress(OSError):
                    path.unlink()


_FREE_SPACE, _OTHER_FOLDER = (
    "Free some space and start again; finished results stay valid",
    "Set `out` to another folder",
)
_REASONS: Mapping[int, str] = {
    errno.ENOSPC: f"the disk is full. {_FREE_SPACE}",
    errno.EDQUOT: f"the disk quota is used up. {_FREE_SPACE}",
    errno.EACCES: f"permission denied. {_OTHER_FOLDER}",
    errno.EPERM: f"permission denied. {_OTHER_FOLDER}",
    errno.EROFS: f"the file system is read-only. {_OTHER_FOLDER}",
    errno.ENOTDIR: f"a part of the path is a file. {_OTHER_FOLDER}",
    errno.EEXIST: f"a part of the path is a file. {_OTHER_FOLDER}",
    errno.EISDIR: f"it is a folder. {_OTHER_FOLDER}",
    errno.EFBIG: f"the file is larger than this process may write (ulimit -f). {_OTHER_FOLDER} or raise the limit",
    errno.EIO: f"the disk has an input/output error. {_OTHER_FOLDER}",
    errno.ELOOP: f"a link in the path leads to itself. {_OTHER_FOLDER}",
    errno.ENOENT: f"no file or folder can be made there. {_OTHER_FOLDER}",
}


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about a full or read-only disk into one line."""
    try:
        yield
    except Exception as error:
        reason = _REASONS.get(_errno(error))
        if reason is None:
            raise
        raise BadInput(f"cannot write {path}: {reason}.") from None


def _errno(error: Exception) -> int:
    """The errno of an error, 0 for others; DuckDB and safetensors pass on its text only."""
    if isinstance(error, OSError):
        return error.errno or 0
    if type(error).__module__.split(".")[0] not in ("duckdb", "_duckdb", "safetensors", "safetensors_rust"):
        return 0
    # A missing file is one that is read: these libraries create none outside of a folder that exists.
    return next((code for code in _REASONS if code != errno.ENOENT and os.strerror(code) in str(error)), 0)


def write_json(path: Path, content: Mapping[str, Any], *, indent: int | None = 2) -> None:
    with atomic_path(path) as temporary:
        text = json.dumps(content, indent=indent, ensure_ascii=False, default=str)
        temporary.write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True, eq=False)
class RecordBlock:
    """Many rows as columns, for tables too long for one `Record` a row.

    Args:
        columns: Arrays of one length, or single values for all rows; missing columns are null.
        coords: Arrays or single values of the further coordinates.
    """

    columns: Mapping[str, Any]
    coords: Mapping[str, Any] = field(default_factory=dict)


Writer = Callable[[Path], contextlib.AbstractContextManager[Path]]
"""`atomic_path`, or a function like it."""


def write_records(path: Path, records: Iterable[Record | RecordBlock], *, writer: Writer = atomic_path) -> None:
    """Write one Parquet part; an empty one still marks its unit as done."""
    rows: list[Record] = []
    blocks: list[RecordBlock] = []
    for record in records:
        (rows if isinstance(record, Record) else blocks).append(record)  # type: ignore[arg-type]
    tables = [_block_of_rows(rows)] if rows or not blocks else []
    tables += blocks
    texts = {name: _texts_of(tables, name) for name, kind in RECORD_COLUMNS.items() if kind == "VARCHAR"}
    keys = dict.fromkeys(key for coords in [row.coords for row in rows] + [b.coords for b in blocks] for key in coords)
    kind = f"MAP({_enum(keys)}, VARCHAR)" if keys else RECORD_COLUMNS["coords"]
    with writer(path) as temporary, scratch_connection() as connection, _interrupts_held_back():
        selects = [_select_block(connection, block, f"block_{i}", texts, kind) for i, block in enumerate(tables)]
        table = " union all ".join(selects)
        connection.execute(f"copy ({table}) to '{sql_path(temporary)}' (format parquet, compression zstd)")


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Raise Ctrl-C after the block, which takes a second or two.

    While DuckDB reads Python objects, a KeyboardInterrupt becomes an error of its own with the traceback as its text, or ends the process.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    pending: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: pending.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pending:
            before(*pending[-1])


_databases: dict[int, Any] = {}
"""An empty DuckDB database in memory, by process: a forked process gets one of its own."""
atexit.register(_databases.clear)  # DuckDB complains on the screen about one that is left when Python ends


def _scratch_database(process: int) -> Any:
    import duckdb

    if process not in _databases:
        _databases[process] = duckdb.connect()
        # On one thread, rows keep their order without being held back: half the memory, two thirds of the CPU time.
        hide_progress_bar(_databases[process])
        for setting in ("threads = 1", "enable_external_file_cache = false"):
            _databases[process].execute(f"set {setting}")
    return _databases[process]


def hide_progress_bar(connection: Any) -> None:
    """Print no progress bar of DuckDB, but keep it: without one DuckDB does not see Ctrl-C.

    In a notebook without ipywidgets there is none, and DuckDB raises at any attempt to change it.
    """
    import duckdb

    with contextlib.suppress(duckdb.InvalidInputException):
        connection.execute("set enable_progress_bar_print = false")


def scratch_connection() -> Any:
    """A DuckDB connection for one small task: to close after use. Opening a database of its own would cost 14 ms each time."""
    return _scratch_database(os.getpid()).cursor()


def _block_of_rows(rows: Sequence[Record]) -> RecordBlock:
    """Single records as columns; their further coordinates as JSON texts."""
    import pandas as pd

    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in RECORD_COLUMNS}
    columns["coords"] = [json.dumps(dict(coords)) for coords in columns["coords"]]
    for name, kind in RECORD_COLUMNS.items():
        if kind == "VARCHAR":
            columns[name] = text_column(columns[name])
        else:
            columns[name] = pd.Series(columns[name], dtype=object)
    return RecordBlock(columns)


def text_column(values: Sequence[str | None], at: Any = None) -> Any:
    """A text column that holds each text once: `values`, or `values[at]` for an array of places `at`."""
    import numpy as np
    import pandas as pd

    place: dict[str, int] = {}
    codes = np.array([-1 if value is None else place.setdefault(value, len(place)) for value in values], dtype=np.int64)
    return pd.Categorical.from_codes(codes if at is None else codes[at], categories=pd.Index(list(place), dtype=object))


def _texts_of(blocks: Sequence[RecordBlock], name: str) -> dict[str, int]:
    """The texts of a column in all blocks, each with its place."""
    texts: dict[str, int] = {}
    for block in blocks:
        value = block.columns.get(name)
        for text in [value] if isinstance(value, str) else [] if value is None else value.categories:
            texts.setdefault(text, len(texts))
    return texts


def _with_texts(column: Any, length: int, texts: Mapping[str, int]) -> Any:
    """A text column whose categories are those of all blocks.

    DuckDB then has one type for it and writes its texts once, not once a row: a third of the time.
    """
    import numpy as np
    import pandas as pd

    kind = np.min_scalar_type(-len(texts) - 1)
    if isinstance(column, str):
        codes = np.full(length, texts[column], dtype=kind)
    else:
        places = np.array([*(texts[text] for text in column.categories), -1], dtype=kind)  # a missing one has code -1
        codes = places[column.codes]
    return pd.Categorical.from_codes(codes, categories=pd.Index(list(texts), dtype=object))


def _enum(texts: Iterable[str]) -> str:
    """A type of DuckDB that has only these texts."""
    return f"ENUM({', '.join(map(sql_literal, texts))})"


def _select_block(
    connection: Any, block: RecordBlock, name: str, texts: Mapping[str, Mapping[str, int]], coords: str
) -> str:
    """A query of the rows of a block, with `coords` as the type of the column of that name."""
    import pandas as pd

    arrays = {key: value for key, value in block.columns.items() if _is_column(value)}
    length = len(next(iter(arrays.values())))
    arrays |= {
        key: _with_texts(value, length, texts[key])
        for key, value in block.columns.items()
        if key in texts and value is not None and texts[key]
    }
    arrays |= {f"coords.{key}": value for key, value in block.coords.items() if _is_column(value)}
    connection.register(name, pd.DataFrame(arrays, copy=False))

    def value(key: str, given: Any) -> str:
        if key in texts:
            return f'"{key}"' if key in arrays and texts[key] else "null" if texts[key] else "null::VARCHAR"
        if not _is_column(given):
            return f"{sql_literal(given)}::{RECORD_COLUMNS[key]}"
        # Missing numbers are null on disk, as in parts of single records.
        column = f"nullif(\"{key}\", 'nan'::DOUBLE)" if RECORD_COLUMNS[key] == "DOUBLE" else f'"{key}"'
        return f"{column}::{RECORD_COLUMNS[key]}"

    parts = [f'{value(c, block.columns.get(c))} as "{c}"' for c in RECORD_COLUMNS if c != "coords"]
    return f"select {', '.join(parts)}, {_coords_sql(block)}::{coords} as coords from {name}"


def _coords_sql(block: RecordBlock) -> str:
    if "coords" in block.columns:
        return f'"coords"::JSON::{RECORD_COLUMNS["coords"]}'
    values = [f'"coords.{key}"' if _is_column(value) else sql_literal(value) for key, value in block.coords.items()]
    # As texts of a type of their own, keys are compared by number.
    keys = ", ".join(f"{sql_literal(key)}::{_enum(block.coords)}" for key in block.coords)
    return f"map([{keys}], [{', '.join(f'{value}::VARCHAR' for value in values)}])" if values else "map([], [])"


def _is_column(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)


def sql_literal(value: Any) -> str:
    """A text, a number or None as SQL writes it."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "'nan'::DOUBLE" if value != value else repr(value)


def sql_path(path: Path | str) -> str:
    """A path inside quotes in SQL."""
    return str(path).replace("'", "''")


def connect_records(parts: Mapping[str, Sequence[Path]]) -> Any:
    """A DuckDB connection with the view `records` over the parts of several runs; the column `run` has their names."""
    import duckdb

    connection = duckdb.connect()
    set_records_view(connection, parts)
    return connection


def set_records_view(connection: Any, parts: Mapping[str, Sequence[Path]]) -> None:
    """Set the view `records` of a DuckDB connection to the parts of several runs."""
    selects = []
    for name, files in parts.items():
        columns = ", ".join(f'"{column}"' for column in RECORD_COLUMNS)
        if files:
            source = f"read_parquet([{', '.join(sql_literal(glob.escape(str(file))) for file in files)}])"
        else:
            columns = ", ".join(f'null::{kind} as "{column}"' for column, kind in RECORD_COLUMNS.items())
            source = "range(0)"
        selects.append(f"select {columns}, {sql_literal(name)} as run from {source}")
    connection.execute("create or replace view records as " + " union all by name ".join(selects))


def write_tensors(
    path: Path, tensors: Mapping[str, Any], header: Mapping[str, Any], *, writer: Writer = atomic_path
) -> None:
    """Write a safetensors file with `header` as JSON under `ontogeny` in its metadata."""
    from safetensors.torch import save_file

    with writer(path) as temporary:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata={"ontogeny": json.dumps(header, default=str)},
        )


def read_tensor_header(path: Path, wanted: Iterable[str] = ()) -> dict[str, Any]:
    """The header of a file of `write_tensors`. Its tensors are not read, but must be there by the size of the file.

    Raises:
        BadInput: the file is damaged or has another format, or its header lacks a key of `wanted`.
    """
    with _damaged_file_errors(path), path.open("rb", buffering=0) as handle:
        length, size = int.from_bytes(handle.read(8), "little"), os.fstat(handle.fileno()).st_size
        if 8 + length > size:
            raise ValueError("its header is longer than the file")
        table = json.loads(handle.read(length))
        end = max((entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"), default=0)
        if 8 + length + end != size:
            raise ValueError(f"it has {size} bytes, and its header says {8 + length + end}")
        header: dict[str, Any] = json.loads(table["__metadata__"]["ontogeny"])
        for name in wanted:
            if not isinstance(header, dict) or name not in header:
                raise ValueError(
                    f"its header has no {name}" if isinstance(header, dict) else "its header is not an object"
                )
    return header


class DamagedPart(BadInput):
    """A file of a run is damaged or lost; the job measures its units again where it finds this out."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(
            f"{file} is {reason}: remove it if it is there, and trace again, which measures its units anew."
        )
        self.file = file


@contextlib.contextmanager
def _damaged_file_errors(path: Path) -> Iterator[None]:
    """Turn errors about a damaged file into one line."""
    from safetensors import SafetensorError

    try:
        yield
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedPart(path, f"damaged ({error})") from None


def read_tensors(path: Path, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Tensors of a file; all of them if `names` is None.

    Raises:
        BadInput: the file is damaged.
    """
    from safetensors import safe_open

    with _damaged_file_errors(path), safe_open(path, framework="pt") as handle:
        return {name: handle.get_tensor(name) for name in (names or handle.keys())}


def atomic_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Write a folder under a temporary name, then rename it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
