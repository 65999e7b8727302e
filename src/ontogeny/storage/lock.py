"""One process at a time writes into a folder: a second one is told so at once, and changes nothing.

Who gets in sweeps first: a process that was killed outright leaves the file that it was writing under its temporary name.
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
    """While open, no other process gets in here; the system itself lets go of the lock of a process that dies.

    One that is at work is waited for, `patience` seconds.

    Raises:
        BadInput: another process is at work in `folder`, or the folder cannot be written.
    """
    made = [f for f in (folder, *folder.parents) if not f.exists()]
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
        # The file stays where work was done: taking a lock's file away lets two in. A folder made for it alone goes.
        if made and folder.is_dir() and is_empty_run(folder):
            (folder / _LOCK_FILE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for path in made:
                    path.rmdir()


def is_empty_run(folder: Path) -> bool:
    """Whether there is nothing in a folder, or only what a process that was killed at once leaves: its lock, half a file."""
    return all(path.name == _LOCK_FILE or is_partial_write(path) for path in folder.iterdir())


def is_locked(folder: Path) -> bool:
    """Whether a process is at work there."""
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
            f"another process is writing into {folder}. Wait until it ends, or choose another folder with --out."
        ) from None
    return lock
