"""Count every point at which a job changes the disk; at one of them the process dies or the disk is full.

A point is a rename, the sync of a growing file, a line of ledger or checksums, or the removal of a file or folder. It fails before
the change, in the middle of it, or right after it.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

MOMENTS = ("before", "torn", "after")
ENDS = ("kill", "raise", "full")


class Crash(BaseException):
    """Whatever ends a program without asking: it is caught by nobody."""


@dataclass
class Points:
    """Counts the points; at number `at` it ends the process, or the call."""

    at: int = 0
    """From 1; 0 only counts."""
    moment: str = "before"
    end: str = "kill"
    seen: list[str] = field(default_factory=list)
    """The kind of each point so far."""

    def change(self, kind: str, torn: Callable[[], Any], whole: Callable[[], Any]) -> Any:
        self.seen.append(kind)
        if len(self.seen) != self.at:
            return whole()
        if self.moment == "before":
            self._end()
        if self.moment == "torn":
            torn()
            self._end()
        whole()
        return self._end()

    def _end(self) -> None:
        if self.end == "kill":
            os._exit(137)
        if self.end == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise Crash


@contextmanager
def counted(points: Points) -> Iterator[Points]:
    """While open, everything that changes the disk passes through `points`."""
    from ontogeny.storage import checksums
    from ontogeny.storage.files import disk_errors
    from ontogeny.storage.run import Run

    replace, fsync, unlink, rmtree, log = os.replace, os.fsync, Path.unlink, shutil.rmtree, Run.log
    append = checksums.append_lines

    def replaced(source: Any, target: Any) -> None:
        points.change("rename", lambda: halve(Path(source)), lambda: replace(source, target))

    def synced(handle: int) -> None:
        # What was opened for reading is synced before its rename, which is counted; a growing file is its own point.
        if _writable(handle):
            points.change(
                "sync", lambda: os.ftruncate(handle, max(0, os.fstat(handle).st_size - 7)), lambda: fsync(handle)
            )
        else:
            fsync(handle)

    def unlinked(path: Path, missing_ok: bool = False) -> None:
        if path.suffix in (".tmp", ".lock") or not path.exists():
            unlink(path, missing_ok=missing_ok)
            return
        points.change("removal", lambda: None, lambda: unlink(path, missing_ok=missing_ok))

    def removed(folder: Any, *rest: Any, **options: Any) -> None:
        if not Path(folder).exists():
            return

        def some() -> None:
            for path in sorted(Path(folder).rglob("*.safetensors"))[:1]:
                unlink(path)

        points.change("removal", some, lambda: rmtree(folder, *rest, **options))

    def logged(run: Run, entry: Any) -> None:
        def torn() -> None:
            log(run, entry)
            path = run.folder / "ledger.jsonl"
            os.truncate(path, path.stat().st_size - 20)

        with disk_errors(run.folder):  # what is written here fails inside of them
            points.change("line", torn, lambda: log(run, entry))

    def appended(path: Path, text: str) -> None:
        points.change("checksum", lambda: append(path, text[: len(text) // 2]), lambda: append(path, text))

    with (
        mock.patch.object(checksums, "append_lines", appended),
        mock.patch.object(os, "replace", replaced),
        mock.patch.object(os, "fsync", synced),
        mock.patch.object(Path, "unlink", unlinked),
        mock.patch.object(shutil, "rmtree", removed),
        mock.patch.object(Run, "log", logged),
    ):
        yield points


def halve(path: Path) -> None:
    """What a kill leaves of a file that was being written; of a folder, its largest file."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    largest = max(files, key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def _writable(handle: int) -> bool:
    import fcntl

    return bool(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)
