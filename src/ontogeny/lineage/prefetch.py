"""Prefetch checkpoints: download the next one while the caller computes; optionally delete each after use.

The 360 checkpoints of Amber are 9.7 TB: with `ahead=1` and `delete_behind` at most two are on disk.
"""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar

from ontogeny.errors import BadInput
from ontogeny.lineage import hub
from ontogeny.lineage.checkpoint import Checkpoint
from ontogeny.lineage.fetch import fetch_checkpoint

_T = TypeVar("_T")
_FetchOutcome = Path | BadInput


class _FetchedFolders:
    """Folders on disk and their users. Used by the fetching thread only, so that fetching and deleting never overlap."""

    def __init__(self, fetch: Callable[[Checkpoint], Path], delete: bool) -> None:
        self.fetch = fetch
        self.delete = delete
        self.in_use: Counter[Path] = Counter()
        self.downloaded: set[Path] = set()

    def acquire(self, checkpoint: Checkpoint) -> _FetchOutcome:
        """Fetch a checkpoint and count its user."""
        try:
            present = checkpoint.is_local or hub.cached_snapshot(*checkpoint.hub_place)
            folder = self.fetch(checkpoint)
        except BadInput as error:
            return error
        if not present:
            self.downloaded.add(folder)
        self.in_use[folder] += 1
        return folder

    def release(self, outcome: _FetchOutcome) -> None:
        """Drop a user; without users, delete a folder that was downloaded here."""
        if isinstance(outcome, BadInput):
            return
        self.in_use[outcome] -= 1
        if self.delete and self.in_use[outcome] <= 0 and outcome in self.downloaded:
            hub.delete_snapshot(outcome)


class Prefetcher:
    """One thread that fetches and deletes checkpoints in the order of the calls."""

    def __init__(self, fetch: Callable[[Checkpoint], Path] = fetch_checkpoint, *, delete_behind: bool = False) -> None:
        self._folders = _FetchedFolders(fetch, delete_behind)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon thread, so that an interrupted program does not wait for a download of many gigabytes.
        self._worker = threading.Thread(target=_work, args=(self._jobs,), name="fetch checkpoints", daemon=True)
        self._worker.start()

    def submit(self, checkpoint: Checkpoint) -> "Future[_FetchOutcome]":
        """Start fetching; the future holds the folder or the error."""
        return _submit(self._jobs, partial(self._folders.acquire, checkpoint))

    def release(self, future: "Future[_FetchOutcome]") -> None:
        """Give a checkpoint back; one that has not been started is not fetched."""
        if not future.cancel():
            _submit(self._jobs, partial(_release, self._folders, future))

    def close(self, *, wait: bool = False) -> None:
        """End the thread after the submitted work."""
        self._jobs.put(None)
        if wait:
            self._worker.join()


def prefetch_checkpoints(
    checkpoints: Iterable[Checkpoint],
    *,
    ahead: int = 1,
    delete_behind: bool = False,
    fetch: Callable[[Checkpoint], Path] = fetch_checkpoint,
) -> Iterator[tuple[Checkpoint, _FetchOutcome]]:
    """Yield each checkpoint with its folder, or with the error if it cannot be fetched.

    A folder is valid until the next checkpoint is requested.

    Args:
        ahead: Number of checkpoints to fetch in advance.
        delete_behind: Whether to delete each checkpoint after use; only if it was downloaded here, never local folders or
            previously cached ones.
    """
    fetcher = Prefetcher(fetch, delete_behind=delete_behind)
    waiting = list(checkpoints)
    pending: list[Future[_FetchOutcome]] = []
    held: Future[_FetchOutcome] | None = None
    try:
        for place, checkpoint in enumerate(waiting):
            while len(pending) <= ahead and place + len(pending) < len(waiting):
                pending.append(fetcher.submit(waiting[place + len(pending)]))
            held = pending.pop(0)
            yield checkpoint, held.result()
            fetcher.release(held)
            held = None
        fetcher.close(wait=True)
    finally:
        for future in ([held] if held else []) + pending:
            fetcher.release(future)
        fetcher.close()


def _release(folders: _FetchedFolders, future: "Future[_FetchOutcome]") -> None:
    if future.exception() is None:
        folders.release(future.result())


def _submit(jobs: "queue.SimpleQueue[Callable[[], None] | None]", work: Callable[[], _T]) -> "Future[_T]":
    future: Future[_T] = Future()

    def job() -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

    jobs.put(job)
    return future


def _work(jobs: "queue.SimpleQueue[Callable[[], None] | None]") -> None:
    while (job := jobs.get()) is not None:
        job()
