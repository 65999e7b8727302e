"""Checkpoints one after the other, the next one fetched while the caller computes; on request each is deleted behind.

All 360 checkpoints of Amber are 9.7 TB: with `ahead=1` and `delete_behind` never more than two lie on disk.
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
from ontogeny.lineage.fetch import fetch_checkpoint as fetch_one

_T = TypeVar("_T")
_FetchOutcome = Path | BadInput


class _FetchedFolders:
    """What lies on disk because of us. Used by the fetching thread alone, so that fetching and deleting never cross."""

    def __init__(self, fetch: Callable[[Checkpoint], Path], delete: bool) -> None:
        self.fetch = fetch
        self.delete = delete
        self.in_use: Counter[Path] = Counter()
        self.ours: set[Path] = set()

    def acquire(self, checkpoint: Checkpoint) -> _FetchOutcome:
        try:
            before = (
                None
                if checkpoint.is_local
                else hub.cached_snapshot(checkpoint.source, checkpoint.revision or "main", checkpoint.commit)
            )
            folder = self.fetch(checkpoint)
        except BadInput as error:
            return error
        if not checkpoint.is_local and before is None:
            self.ours.add(folder)
        self.in_use[folder] += 1
        return folder

    def release(self, outcome: _FetchOutcome) -> None:
        """Done with one; the last to leave what we fetched deletes it."""
        if isinstance(outcome, BadInput):
            return
        self.in_use[outcome] -= 1
        if self.delete and self.in_use[outcome] <= 0 and outcome in self.ours:
            hub.delete_snapshot(outcome)


class Prefetcher:
    """One thread that fetches and deletes, in the order in which it is asked."""

    def __init__(self, fetch: Callable[[Checkpoint], Path] = fetch_one, *, delete_behind: bool = False) -> None:
        self._shelf = _FetchedFolders(fetch, delete_behind)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon, so that an interrupted program does not wait for the end of a download of many gigabytes.
        self._worker = threading.Thread(target=_work, args=(self._jobs,), name="fetch checkpoints", daemon=True)
        self._worker.start()

    def submit(self, checkpoint: Checkpoint) -> "Future[_FetchOutcome]":
        """The folder, when it is there, or why it cannot be had."""
        return _submit(self._jobs, partial(self._shelf.acquire, checkpoint))

    def release(self, asked: "Future[_FetchOutcome]") -> None:
        """What was asked for is not needed any more; what has not begun is not fetched."""
        if not asked.cancel():
            _submit(self._jobs, partial(_leave, self._shelf, asked))

    def close(self, *, wait: bool = False) -> None:
        """No more is asked for."""
        self._jobs.put(None)
        if wait:
            self._worker.join()


def prefetch_checkpoints(
    checkpoints: Iterable[Checkpoint],
    *,
    ahead: int = 1,
    delete_behind: bool = False,
    fetch: Callable[[Checkpoint], Path] = fetch_one,
) -> Iterator[tuple[Checkpoint, _FetchOutcome]]:
    """Each checkpoint with its folder, in order; one that cannot be had comes with its error, and the others go on.

    A folder is there until the next checkpoint is asked for. `delete_behind` deletes only what this stream downloaded:
    neither local folders nor what was in the cache before.
    """
    fetcher = Prefetcher(fetch, delete_behind=delete_behind)
    waiting = list(checkpoints)
    coming: list[Future[_FetchOutcome]] = []
    held: Future[_FetchOutcome] | None = None
    try:
        for place, checkpoint in enumerate(waiting):
            while len(coming) <= ahead and place + len(coming) < len(waiting):
                coming.append(fetcher.submit(waiting[place + len(coming)]))
            held = coming.pop(0)
            yield checkpoint, held.result()
            fetcher.release(held)
            held = None
        fetcher.close(wait=True)
    finally:
        for future in ([held] if held else []) + coming:
            fetcher.release(future)
        fetcher.close()


def _leave(shelf: _FetchedFolders, future: "Future[_FetchOutcome]") -> None:
    if future.exception() is None:
        shelf.release(future.result())


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
