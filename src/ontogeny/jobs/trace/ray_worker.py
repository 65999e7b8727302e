"""One worker of a cluster: a model that stands, and checkpoints in whatever order they are asked for, fetched where it runs.

It writes into a share of the run (`shards`) that it holds during a visit alone: between two visits the one who holds the run
gathers what is done. So a worker that is struck loses no more than the unit that it was computing.
"""

import importlib
import os
import socket
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ontogeny._version import __version__
from ontogeny.errors import BadInput
from ontogeny.jobs.progress import TraceProgress
from ontogeny.jobs.trace.executor import CheckpointExecutor, ModelOptions, fetch_and_warm
from ontogeny.jobs.trace.plan import Failure, TracePlan
from ontogeny.jobs.trace.shards import SHARDS_FOLDER
from ontogeny.lineage import Checkpoint, Prefetcher
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run

_SETTLE_SECONDS = 120
"""Seconds in which a process that was killed is gone, and its lock with it."""
_SHARED_FOLDER_HINT = "Put the run, the checkpoints and the folder you start in where all machines of the cluster see them under one path."


@dataclass(frozen=True)
class VisitResult:
    """How a visit ended; errors travel as words."""

    fault: Failure | None = None
    """Of this checkpoint."""
    refused: str | None = None
    """What is wrong with all of them."""
    floor_left: bool = False
    """Whether it did not get as far as the random initialisation."""


class RayWorker:
    """Asked by one visit at a time; only `now` may be asked meanwhile."""

    def __init__(self, job: TracePlan, run: Path, name: str, how: ModelOptions, threads: int, home: Path) -> None:
        self.job, self.home, self.threads = job, home, threads
        self.run, self.share = Run(run), Run(run / SHARDS_FOLDER / name)
        self.said: TraceProgress | None = None
        self.how = replace(how, watch=self._say)
        self.visitor = CheckpointExecutor(job, self.share, self.how, floor=())
        self.fetcher = Prefetcher(
            partial(fetch_and_warm, allow_pickle=how.allow_pickle), delete_behind=how.delete_behind
        )
        self.coming: dict[Checkpoint, Future] = {}

    def look(self, expected: str) -> str | None:
        """Why this worker cannot serve, or None; `expected` is what `seen` gives where the run was begun."""
        host = socket.gethostname()
        try:
            os.chdir(self.home)
            found = run_digest(self.run)
        except (OSError, BadInput):
            gone = self.run.about_path if self.home.is_dir() else self.home
            return f"{host} does not see {gone}. {_SHARED_FOLDER_HINT}"
        if found != expected:
            return (
                f"{host} has another version of ontogeny or torch, or another {self.run.about_path}. Make them the same on all "
                "machines of the cluster."
            )
        local = [checkpoint.source for checkpoint in self.job.checkpoints if checkpoint.is_local]
        if lost := [source for source in local if not Path(source).is_dir()]:
            return f"{host} does not see {lost[0]}. {_SHARED_FOLDER_HINT}"
        return _why_device_missing(self.how.device, host)

    def visit(
        self, checkpoint: Checkpoint, concepts: Collection[str], floor: Collection[str], ahead: Checkpoint | None
    ) -> VisitResult:
        """Visit a checkpoint for these concepts, while the one that probably comes next is fetched."""
        torch.set_num_threads(self.threads)
        asked = self._fetched(checkpoint, ahead)
        try:
            with run_lock(self.share.folder, patience=_SETTLE_SECONDS):
                # A share is known for a run by its run.json; where the certificate is in it, none is made again.
                self.share.describe(self.run.about | {"failures": []})
                self.visitor.floor = [concept for concept in self.job.concepts if concept.name in floor]
                wanted = [concept for concept in self.job.concepts if concept.name in concepts]
                fault = self.visitor.visit(checkpoint, asked.result(), wanted)
                return VisitResult(fault, floor_left=bool(self.visitor.floor))
        except BadInput as error:
            return VisitResult(refused=str(error))
        finally:
            self.fetcher.leave(asked)
            self.said = None

    def now(self) -> TraceProgress | None:
        """What it is at."""
        return self.said

    def end(self) -> None:
        """Delete what was fetched for nothing."""
        for asked in self.coming.values():
            self.fetcher.leave(asked)
        self.fetcher.end(wait=True)

    def _fetched(self, checkpoint: Checkpoint, ahead: Checkpoint | None) -> Future:
        asked = self.coming.pop(checkpoint, None) or self.fetcher.ask(checkpoint)
        for other in set(self.coming) - {ahead}:  # another worker was free earlier
            self.fetcher.leave(self.coming.pop(other))
        if ahead is not None and ahead not in self.coming:
            self.coming[ahead] = self.fetcher.ask(ahead)
        return asked

    def _say(self, now: TraceProgress) -> None:
        self.said = now


def run_digest(run: Run) -> str:
    """Equal on two machines that see one run and compute alike, from its beginning to its end."""
    about = [run.about[key] for key in ("lineage", "concepts", "settings")]
    return content_digest([__version__, torch.__version__.split("+")[0], about])


def wait_for_dying_workers(run: Run, worker: str = "ray-*-of-*") -> None:
    """Wait for workers that are dying, such as those of a process that was killed: their shares can be gathered then.

    Raises:
        BadInput: one of them still writes after two minutes.
    """
    for folder in sorted((run.folder / SHARDS_FOLDER).glob(worker)):
        with run_lock(folder, patience=_SETTLE_SECONDS):
            pass


def _why_device_missing(device: str, host: str) -> str | None:
    """Ray counts GPUs as it was told to; here is asked whether they are there."""
    if device == "auto" and not _has_accelerate():
        return f"a model on several GPUs needs accelerate, which {host} lacks. Install it with: pip install 'ontogeny[ray]'"
    if device not in ("auto", "cuda"):
        return None
    told = len([gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu])
    if (found := torch.cuda.device_count()) != told:
        return (
            f"Ray gave {told} GPUs to a worker on {host}, and torch finds {found} there. Install torch for CUDA there, or leave "
            "--gpus-per-model out."
        )
    return None


def _has_accelerate() -> bool:
    try:
        importlib.import_module("accelerate")
    except ImportError:
        return False
    return True
