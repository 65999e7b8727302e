"""File lock: only one process may write to a run directory; a second one fails immediately and changes nothing.

The process that gets the lock first removes the temporary files of processes that were killed.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ontogeny.errors import BadInput
from ontogeny.storage.files import disk_errors, is_partial_write, remove_partial_writes

_LOCK_FILE = ".lock"


@contextlib.contextmanager
def run_lock(folder: Path, *, patience: float = 0) -> Iterator[None]:
    """Hold the lock of a folder; the operating system releases it if the process dies.

    Args:
        patience: Seconds to wait for another process.

    Raises:
        BadInput: another process holds the lock, or the folder cannot be written.
    """
    created = [f for f in (folder, *folder.parents) if not f.exists()]
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = _acquire_lock(folder, patience)
        try:
            remove_partial_writes(folder, lock=_LOCK_FILE)
            yield
        finally:
            lock.release()
    finally:
        # Removing a lock file in use would let two processes in, so only a folder that is still empty is removed.
        if created and folder.is_dir() and is_empty_run(folder):
            (folder / _LOCK_FILE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for path in created:
                    path.rmdir()


def is_empty_run(folder: Path) -> bool:
    """Whether a folder is empty up to what a killed process leaves: its lock and partial files."""
    return all(path.name == _LOCK_FILE or is_partial_write(path) for path in folder.iterdir())


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of a folder."""
    lock = FileLock(folder / _LOCK_FILE, timeout=0)
    try:
        with lock:
            return False
    except Timeout:
        return True


def _acquire_lock(folder: Path, patience: float = 0) -> FileLock:
    lock = FileLock(folder / _LOCK_FILE, timeout=patience)
    try:
        lock.acquire()
    except Timeout:
        raise BadInput(
            f"another process is writing into {folder}: wait until it ends, or set `out` to another folder."
        ) from None
    return lock
