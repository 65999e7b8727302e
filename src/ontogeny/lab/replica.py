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

import ontogeny
from ontogeny.errors import BadInput
from ontogeny.lab.alone import alone
from ontogeny.lab.job import Fault, Job
from ontogeny.lab.progress import Progress
from ontogeny.lab.shards import SHARDS
from ontogeny.lab.visitor import How, Visitor, fetch_and_warm
from ontogeny.lineage import Checkpoint, Fetcher
from ontogeny.run import Run
from ontogeny.store import digest

PATIENCE = 120
"""Seconds in which a process that was killed is gone, and its lock with it."""
SHARED = "Put the run, the checkpoints and the folder you start in where all machines of the cluster see them under one path."


@dataclass(frozen=True)
class Visited:
    """How a visit ended; errors travel as words."""

    fault: Fault | None = None
    """Of this checkpoint."""
    refused: str | None = None
    """What is wrong with all of them."""
    floor_left: bool = False
    """Whether it did not get as far as the random initialisation."""


class Replica:
    """Asked by one visit at a time; only `now` may be asked meanwhile."""

    def __init__(self, job: Job, run: Path, name: str, how: How, threads: int, home: Path) -> None:
        self.job, self.home, self.threads = job, home, threads
        self.run, self.share = Run(run), Run(run / SHARDS / name)
        self.said: Progress | None = None
        self.how = replace(how, watch=self._say)
        self.visitor = Visitor(job, self.share, self.how, floor=())
        self.fetcher = Fetcher(partial(fetch_and_warm, allow_pickle=how.allow_pickle), delete_behind=how.delete_behind)
        self.coming: dict[Checkpoint, Future] = {}

    def look(self, expected: str) -> str | None:
        """Why this worker cannot serve, or None; `expected` is what `seen` gives where the run was begun."""
        host = socket.gethostname()
        try:
            os.chdir(self.home)
            found = seen(self.run)
        except (OSError, BadInput):
            gone = self.run.about_path if self.home.is_dir() else self.home
            return f"{host} does not see {gone}. {SHARED}"
        if found != expected:
            return (
                f"{host} has another version of ontogeny or torch, or another {self.run.about_path}. Make them the same on all "
                "machines of the cluster."
            )
        local = [checkpoint.source for checkpoint in self.job.checkpoints if checkpoint.is_local]
        if lost := [source for source in local if not Path(source).is_dir()]:
            return f"{host} does not see {lost[0]}. {SHARED}"
        return _device_lacks(self.how.device, host)

    def visit(
        self, checkpoint: Checkpoint, concepts: Collection[str], floor: Collection[str], ahead: Checkpoint | None
    ) -> Visited:
        """Visit a checkpoint for these concepts, while the one that probably comes next is fetched."""
        torch.set_num_threads(self.threads)
        asked = self._fetched(checkpoint, ahead)
        try:
            with alone(self.share.folder, patience=PATIENCE):
                # A share is known for a run by its run.json; where the certificate is in it, none is made again.
                self.share.describe(self.run.about | {"failures": []})
                self.visitor.floor = [concept for concept in self.job.concepts if concept.name in floor]
                wanted = [concept for concept in self.job.concepts if concept.name in concepts]
                fault = self.visitor.visit(checkpoint, asked.result(), wanted)
                return Visited(fault, floor_left=bool(self.visitor.floor))
        except BadInput as error:
            return Visited(refused=str(error))
        finally:
            self.fetcher.leave(asked)
            self.said = None

    def now(self) -> Progress | None:
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

    def _say(self, now: Progress) -> None:
        self.said = now


def seen(run: Run) -> str:
    """Equal on two machines that see one run and compute alike, from its beginning to its end."""
    about = [run.about[key] for key in ("lineage", "concepts", "settings")]
    return digest([ontogeny.__version__, torch.__version__.split("+")[0], about])


def settle(run: Run, worker: str = "ray-*-of-*") -> None:
    """Wait for workers that are dying, such as those of a process that was killed: their shares can be gathered then.

    Raises:
        BadInput: one of them still writes after two minutes.
    """
    for folder in sorted((run.folder / SHARDS).glob(worker)):
        with alone(folder, patience=PATIENCE):
            pass


def _device_lacks(device: str, host: str) -> str | None:
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
