"""Checksums of the files of a run, so that a damaged, swapped or lost file is noticed where it is read.

    checksums.jsonl   {"file": "records/UNIT.parquet", "sum": "…", "line": "…"}

One line is added before a file gets its name, and one with the sum null before it is removed; "line" is the checksum of the line itself.

A file is whole if one of its lines has its checksum: a kill between the line and the rename leaves the file before. The next line is
written only after the rename, so only the last line may name a file that never came to be. A file without a line was written by an
earlier version and is believed.
"""

import contextlib
import json
import os
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ontogeny.storage.files import DamagedPart, atomic_path, disk_errors

CHECKSUM_FILE = "checksums.jsonl"
_FOLDERS = ("records", "directions", "scores", "significance")
_CHUNK = 4 * 2**20
_SPARE_LINES = 1000
"""Lines about removed and replaced files that are kept before the file is written anew."""
_writing = threading.RLock()


@dataclass
class _Log:
    sums: dict[str, list[str | None]] = field(default_factory=dict)
    """All checksums of each file, the last one last."""
    last: str = ""
    """The file of the last line, which may not have got its name yet."""
    lines: int = 0
    damaged: bool = False
    """Whether a line could not be read: then none is believed, until the end of a session writes the file anew."""

    def add(self, file: str, checksum: str | None) -> None:
        self.sums.setdefault(file, []).append(checksum)
        self.last = file
        self.lines += 1


_State = tuple[int, int, int]
_logs: dict[Path, tuple[_State, _Log]] = {}
_checked: dict[Path, _State] = {}
"""Files that this process found whole, with size, time and inode."""
_checked_by_tensors: dict[Path, _State] = {}
"""Files of which this process compared the checksums of the tensors."""


@contextlib.contextmanager
def atomic_part(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """As `atomic_path`, and the file's checksum is entered before it gets its name.

    An error that keeps the file from getting its name, such as a full disk, takes the line back.

    Args:
        folder: The run directory; by default the one above the file's folder.
    """
    with _part(path, path.parent.parent if folder is None else folder) as (temporary, _):
        yield temporary


def write_part(path: Path, write: Callable[[Path], int]) -> None:
    """As `atomic_part`, by a function that returns the CRC-32 of the file that it writes, which then is not read again."""
    with _part(path, path.parent.parent) as (temporary, sums):
        crc = write(temporary)
        sums.append(f"{temporary.stat().st_size:016x}{crc:08x}")


@contextlib.contextmanager
def _part(path: Path, folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """A temporary path, and a list for its checksum, if that is known."""
    with _writing:
        entered: tuple[int, int] | None = None
        try:
            with atomic_path(path) as temporary:
                sums: list[str] = []
                yield temporary, sums
                log = _state(folder / CHECKSUM_FILE)
                entered = (log[0] if log else 0), temporary.stat().st_ino
                _append(folder, {path.relative_to(folder).as_posix(): sums[0] if sums else checksum(temporary)})
            if state := _state(path):
                _checked[path] = state
        except BaseException:
            named = _state(path)
            if entered is not None and (named is None or named[2] != entered[1]):
                _cut_log(folder, entered[0])
            raise


def _cut_log(folder: Path, size: int) -> None:
    """Take back the lines beyond the first `size` bytes."""
    path = folder / CHECKSUM_FILE
    _logs.pop(folder, None)
    with contextlib.suppress(OSError):
        if size:
            os.truncate(path, size)
        else:
            path.unlink(missing_ok=True)


def enter_removal(folder: Path, paths: Iterable[Path]) -> None:
    """Enter that files are about to be removed, so that no check reports them as missing."""
    with _writing:
        known = _read_log(folder).sums
        names = [path.relative_to(folder).as_posix() for path in paths]
        _append(folder, {name: None for name in names if known.get(name, [None])[-1] is not None})


def forget_files(folder: Path, written: Collection[Path], before: bytes) -> None:
    """Take back the lines about files that are removed again.

    Args:
        written: Files that a failed session wrote.
        before: The content of the file at the start of that session.
    """
    path = folder / CHECKSUM_FILE
    if not before or not path.is_file():
        return
    now, names = path.read_bytes(), {file.relative_to(folder).as_posix() for file in written} | {""}
    new = [_entry(line) for line in now[len(before) :].splitlines()]
    if now.startswith(before) and all(entry is not None and entry[0] in names for entry in new):
        with atomic_path(path) as temporary:
            temporary.write_bytes(before)
    else:
        enter_removal(folder, written)


def enter_move(source: Path, target: Path) -> None:
    """Enter a file of another run directory that is about to get the name `target`.

    Raises:
        DamagedPart: it is not what was written there.
    """
    check_file(source)
    with _writing:
        folder = target.parent.parent
        _append(folder, {target.relative_to(folder).as_posix(): checksum(source)})


def check_file(path: Path, folder: Path | None = None) -> None:
    """Compare a file with its checksum, once in this process as long as its size, time and inode stay the same.

    Args:
        folder: The run directory; by default the one above the file's folder.

    Raises:
        DamagedPart: it is lost, or another than the one that was written.
    """
    folder = path.parent.parent if folder is None else folder
    state = _state(path)
    if state is not None and _checked.get(path) == state:
        return
    sums = _read_log(folder).sums.get(path.relative_to(folder).as_posix(), [])
    if state is None:
        raise DamagedPart(path, "lost")
    if known := {entry for entry in sums if entry is not None}:
        try:
            whole = checksum(path) in known
        except OSError as error:
            raise DamagedPart(path, f"damaged ({error.strerror})") from None
        if not whole:
            raise DamagedPart(path, "damaged (its checksum differs)")
    _checked[path] = state


def check_by_tensors(path: Path, crc32: Callable[[Path], int | None]) -> None:
    """As `check_file`, for a file whose tensors have checksums of their own, which are compared when one of them is read.

    Args:
        crc32: The CRC-32 of the file by those of its tensors; None for a file without them, which is read as a whole.

    Raises:
        DamagedPart: it is lost, or another than the one that was written.
    """
    state = _state(path)
    if state is not None and state in (_checked.get(path), _checked_by_tensors.get(path)):
        return
    folder = path.parent.parent
    sums = _read_log(folder).sums.get(path.relative_to(folder).as_posix(), [])
    if state is None:
        raise DamagedPart(path, "lost")
    if known := {entry for entry in sums if entry is not None}:
        value = crc32(path)
        if value is None:
            check_file(path)
        elif f"{state[0]:016x}{value:08x}" not in known:
            raise DamagedPart(path, "damaged (its checksum differs)")
    _checked_by_tensors[path] = state


def lost_files(folder: Path, kind: str) -> list[Path]:
    """Files of a folder of the run, such as records, that were written and are gone."""
    log = _read_log(folder)
    wanted = {
        name.partition("/")[2]: name
        for name, sums in log.sums.items()
        if name.startswith(f"{kind}/") and sums[-1] is not None and name != log.last
    }
    if not wanted:
        return []
    try:
        there = set(os.listdir(folder / kind))
    except FileNotFoundError:
        there = set()
    return [folder / wanted[name] for name in sorted(wanted.keys() - there)]


def end_session(folder: Path) -> None:
    """Enter that the last file has its name. The caller must hold the folder's lock."""
    with _writing:
        log = _read_log(folder)
        if log.last:
            _append(folder, {"": None})
        _shorten(folder, log)


def is_entered(path: Path) -> bool:
    """Whether a part has a checksum; those of earlier versions have none."""
    folder = path.parent.parent
    return path.relative_to(folder).as_posix() in _read_log(folder).sums


def _shorten(folder: Path, log: _Log) -> None:
    """Write the file anew if it is damaged, or if most of its lines are about files that were removed or replaced."""
    live = {name: sums[-1] for name, sums in log.sums.items() if (folder / name).is_file() and sums[-1] is not None}
    if log.damaged:
        paths = [path for kind in _FOLDERS for path in (folder / kind).glob("[!.]*")]
        live = {path.relative_to(folder).as_posix(): checksum(path) for path in paths}
    elif log.lines < 2 * len(live) + _SPARE_LINES:
        return
    with atomic_path(folder / CHECKSUM_FILE) as temporary:
        temporary.write_text("".join(_line(name, entry) for name, entry in live.items()), encoding="utf-8")
    _logs.pop(folder, None)


def checksum(path: Path) -> str:
    """Size and CRC-32 of a file, 24 hex digits."""
    value = size = 0
    with path.open("rb") as handle:
        while block := handle.read(_CHUNK):
            value, size = zlib.crc32(block, value), size + len(block)
    return f"{size:016x}{value:08x}"


def _append(folder: Path, entries: Mapping[str, str | None]) -> None:
    if not entries:
        return
    log, path = _read_log(folder), folder / CHECKSUM_FILE
    unborn: Collection[str] = {log.last} if log.last and not (folder / log.last).exists() else ()
    lines: dict[str, str | None] = {name: None for name in unborn if log.sums[name][-1] is not None}
    lines |= entries
    with disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        append_lines(path, "".join(_line(name, entry) for name, entry in lines.items()))
    for name, entry in lines.items():
        log.add(name, entry)
    _logs[folder] = (_state(path) or (0, 0, 0), log)


def append_lines(path: Path, text: str) -> None:
    """Append whole lines to a file; a line that was cut off before must not merge with the next one."""
    with path.open("a+b") as handle:
        handle.seek(max(0, handle.tell() - 1))
        start = b"\n" if handle.read(1) not in (b"", b"\n") else b""
        handle.write(start + text.encode())


def _line(name: str, entry: str | None) -> str:
    return json.dumps({"file": name, "sum": entry, "line": _line_checksum(name, entry)}) + "\n"


def _line_checksum(name: str, entry: str | None) -> str:
    return f"{zlib.crc32(f'{name} {entry}'.encode()):08x}"


def _read_log(folder: Path) -> _Log:
    """The checksums of a run; none if the file is damaged."""
    path = folder / CHECKSUM_FILE
    state = _state(path)
    known = _logs.get(folder)
    if known is not None and known[0] == state:
        return known[1]
    log = _Log()
    if state is not None:
        entries = [_entry(line) for line in path.read_bytes().splitlines()]
        # The last line may have been cut off by a kill.
        log.damaged = None in entries[:-1]
        for entry in entries if not log.damaged else ():
            if entry is not None:
                log.add(*entry)
        _logs[folder] = (state, log)
    return log


def _entry(line: bytes) -> tuple[str, str | None] | None:
    try:
        entry: Any = json.loads(line)
        name, value, own = entry["file"], entry["sum"], entry["line"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    known = isinstance(name, str) and (value is None or isinstance(value, str))
    return (name, value) if known and own == _line_checksum(name, value) else None


def _state(path: Path) -> _State | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
