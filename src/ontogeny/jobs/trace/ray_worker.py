"""A Ray worker: keeps a model loaded and visits checkpoints in any order, fetching them on its own machine.

It writes into a shard of the run (`shards`), which it locks only during a visit; between visits the driver gathers the finished units.
A worker that dies loses only the unit that it was computing.
"""

import importlib.util
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
from ontogeny.jobs.resumable import SHARDS_FOLDER, fetch_and_warm
from ontogeny.jobs.trace.execution import TraceExecution
from ontogeny.jobs.trace.executor import CheckpointExecutor
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.jobs.trace.shards import SETTLE_SECONDS
from ontogeny.lineage import Checkpoint, Prefetcher
from ontogeny.models.multi_gpu import ALL_GPUS
from ontogeny.storage.failures import Failure
from ontogeny.storage.files import content_digest
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run

_SHARED_FOLDER_HINT = (
    "put the run, the checkpoints and the working folder where all machines of the cluster see them under one path."
)


@dataclass(frozen=True)
class VisitResult:
    """How a visit ended. Errors are passed as text."""

    failures: tuple[Failure, ...] = ()
    """Of this checkpoint."""
    bad_input: str | None = None
    """An error that concerns all checkpoints."""
    floor_missing: bool = False
    """Whether the visit ended before the random initialisation was measured."""


class RayWorker:
    """The actor. Not reentrant; only `progress` may be called during a visit."""

    def __init__(
        self, plan: TracePlan, run: Path, name: str, execution: TraceExecution, threads: int, home: Path
    ) -> None:
        self.plan, self.home, self.threads = plan, home, threads
        self.run, self.share = Run(run), Run(run / SHARDS_FOLDER / name)
        self.last_progress: TraceProgress | None = None
        self.execution = replace(execution, on_progress=self._on_progress)
        self.executor = CheckpointExecutor(plan, self.share, self.execution, floor=())
        fetch = partial(fetch_and_warm, allow_pickle=execution.model.allow_pickle)
        self.fetcher = Prefetcher(fetch, delete_behind=execution.delete_behind)
        self.prefetched: dict[Checkpoint, Future] = {}

    def why_unusable(self, expected: str) -> str | None:
        """Why this worker cannot be used, or None; `expected` is the driver's `run_digest`."""
        host = socket.gethostname()
        try:
            os.chdir(self.home)
            digest = run_digest(self.run)
        except (OSError, BadInput):
            missing = self.run.about_path if self.home.is_dir() else self.home
            return f"{host} does not see {missing}: {_SHARED_FOLDER_HINT}"
        if digest != expected:
            return (
                f"{host} has another version of ontogeny or torch, or another {self.run.about_path}: make them the same on all "
                "machines of the cluster."
            )
        local = [checkpoint.source for checkpoint in self.plan.checkpoints if checkpoint.is_local]
        if lost := [source for source in local if not Path(source).is_dir()]:
            return f"{host} does not see {lost[0]}: {_SHARED_FOLDER_HINT}"
        return _why_device_missing(self.execution.model.device, host)

    def visit(
        self, checkpoint: Checkpoint, concepts: Collection[str], floor: Collection[str], prefetch: Checkpoint | None
    ) -> VisitResult:
        """Visit a checkpoint for these concepts, and fetch the next one meanwhile."""
        torch.set_num_threads(self.threads)
        fetched = self._fetch(checkpoint, prefetch)
        try:
            with run_lock(self.share.folder, patience=SETTLE_SECONDS):
                # run.json makes the shard a run; if it holds the parity certificate, none is made again.
                self.share.describe(self.run.about | {"failures": []})
                self.executor.floor = [concept for concept in self.plan.concepts if concept.name in floor]
                wanted = [concept for concept in self.plan.concepts if concept.name in concepts]
                failures = self.executor.visit([(checkpoint, fetched.result())], {checkpoint: wanted})
                return VisitResult(tuple(failures), floor_missing=bool(self.executor.floor))
        except BadInput as error:
            return VisitResult(bad_input=str(error))
        finally:
            self.fetcher.release(fetched)
            self.last_progress = None

    def progress(self) -> TraceProgress | None:
        return self.last_progress

    def delete_prefetched(self) -> None:
        """Delete a checkpoint that was fetched and not visited."""
        for fetched in self.prefetched.values():
            self.fetcher.release(fetched)
        self.fetcher.close(wait=True)

    def _fetch(self, checkpoint: Checkpoint, prefetch: Checkpoint | None) -> Future:
        fetched = self.prefetched.pop(checkpoint, None) or self.fetcher.submit(checkpoint)
        for other in set(self.prefetched) - {prefetch}:  # another worker has taken it over
            self.fetcher.release(self.prefetched.pop(other))
        if prefetch is not None and prefetch not in self.prefetched:
            self.prefetched[prefetch] = self.fetcher.submit(prefetch)
        return fetched

    def _on_progress(self, progress: TraceProgress) -> None:
        self.last_progress = progress


def run_digest(run: Run) -> str:
    """Equal on two machines that see the same run and have the same versions; constant from the start of a run to its end."""
    about = [run.about[key] for key in ("lineage", "concepts", "settings")]
    return content_digest([__version__, torch.__version__.split("+")[0], about])


def _why_device_missing(device: str, host: str) -> str | None:
    """Check that the GPUs which Ray assigned exist."""
    if device == ALL_GPUS and importlib.util.find_spec("accelerate") is None:
        return f"{host} lacks accelerate, which a model on several GPUs needs: pip install 'ontogeny[ray]'"
    if device not in (ALL_GPUS, "cuda"):
        return None
    assigned = len([gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu])
    if (found := torch.cuda.device_count()) != assigned:
        return (
            f"Ray gave {assigned} GPUs to a worker on {host}, and torch finds {found} there: install torch for CUDA there, or do "
            "not set `gpus_per_model`."
        )
    return None
