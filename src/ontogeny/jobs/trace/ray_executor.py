"""The visits of a trace on Ray: one worker a model, the next checkpoint to whoever is free, and nobody's death ends the others.

The process that began the trace holds the run, hands out visits one by one, and gathers what a worker has done before it hands out
the next. A worker that dies is replaced, and its checkpoint tried again with what is still missing of it; a few times, then it is told.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.progress import TraceProgress, ignore_progress
from ontogeny.jobs.trace.executor import ModelOptions, concepts_without_floor
from ontogeny.jobs.trace.plan import Failure, TracePlan
from ontogeny.jobs.trace.ray_cluster import (
    WorkerLayout,
    available_threads,
    cluster_nodes,
    connect_ray,
    is_local_cluster,
    plan_workers,
    release_worker,
    reserve_worker,
)
from ontogeny.jobs.trace.ray_worker import RayWorker, VisitResult, run_digest, wait_for_dying_workers
from ontogeny.jobs.trace.shards import gather_shards
from ontogeny.lineage import Checkpoint
from ontogeny.storage.run import Run

_MAX_ATTEMPTS = 3
"""Workers that may die over one checkpoint, or before they begin."""
_POLL_SECONDS = 0.5
"""Seconds between two looks at what the workers say."""


def visit_all_on_ray(
    job: TracePlan, run: Run, how: ModelOptions, missing: Mapping[Checkpoint, list[Concept]]
) -> list[Failure]:
    """Visit each checkpoint that lacks a unit, on as many workers as there is room for; as `Visitor.visit_all`."""
    assert how.cluster is not None
    if not missing:
        return []
    how.watch(TraceProgress("Ray", len(job.checkpoints) - len(missing), len(job.checkpoints), "is starting"))
    with connect_ray(how.cluster) as ray:
        most = available_threads() if is_local_cluster(how.cluster, ray) else None
        given = plan_workers(cluster_nodes(ray), how.cluster, visits=len(missing), threads=most)
        with _worker_pool(ray, job, run, how, given) as crew:
            return _VisitRound(ray, job, run, how, crew, deque(missing)).go()


@dataclass
class _Worker:
    """The driver's side of a worker."""

    name: str
    actor: Any
    group: Any
    answer: Any
    """What is awaited: whether it can serve, then visit after visit; None while it is idle."""
    at: Checkpoint | None = None
    ahead: Checkpoint | None = None
    """Being fetched for it, unless another one is free earlier."""
    floor: bool = False
    deaths: int = 0
    """In a row, before it could serve."""
    told: Any = None
    said: TraceProgress | None = None


class _WorkerPool:
    """Makes workers, and makes them again."""

    def __init__(self, ray: Any, job: TracePlan, run: Run, how: ModelOptions, given: WorkerLayout) -> None:
        self.ray, self.run, self.given = ray, run, given
        self.home, self.expected = Path.cwd(), run_digest(run)
        self.job = ray.put(job)
        self.how = replace(
            how, watch=ignore_progress, cluster=None, device=(how.cluster and how.cluster.device) or how.device
        )
        self.workers = [self.make(i) for i in range(given.workers)]

    def make(self, index: int) -> _Worker:
        kind, group = reserve_worker(self.ray, RayWorker, self.given)
        name = f"ray-{index}-of-{self.given.workers}"
        folder = self.run.folder.resolve()
        actor = kind.remote(self.job, folder, name, self.how, self.given.threads, self.home)
        return _Worker(name, actor, group, actor.look.remote(self.expected))

    def again(self, worker: _Worker) -> None:
        """Another one in its place, or none if they die before they begin."""
        self.dismiss(worker)
        index = self.workers.index(worker)
        made = self.make(index)
        made.deaths = worker.deaths
        self.workers[index] = made

    def dismiss(self, worker: _Worker) -> None:
        with contextlib.suppress(Exception):  # it is gone
            self.ray.kill(worker.actor, no_restart=True)
        release_worker(self.ray, worker.group)


@contextlib.contextmanager
def _worker_pool(ray: Any, job: TracePlan, run: Run, how: ModelOptions, given: WorkerLayout) -> Iterator[_WorkerPool]:
    """However it ends, no worker is left, and all that they finished is in the run."""
    crew = _WorkerPool(ray, job, run, how, given)
    try:
        yield crew
        ended = [worker.actor.end.remote() for worker in crew.workers if worker.answer is None]
        ray.wait(ended, num_returns=len(ended), timeout=60)
    finally:
        for worker in crew.workers:
            crew.dismiss(worker)
        wait_for_dying_workers(run)
        gather_shards(run)


@dataclass
class _VisitRound:
    """One pass over what is missing."""

    ray: Any
    job: TracePlan
    run: Run
    how: ModelOptions
    crew: _WorkerPool
    waiting: deque[Checkpoint]
    faults: list[Failure] = field(default_factory=list)
    died: Counter[Checkpoint] = field(default_factory=Counter)
    floored: bool = False
    """Whether the floor was tried."""

    def go(self) -> list[Failure]:
        while self.waiting or any(worker.at or worker.ahead for worker in self.crew.workers):
            for worker in self.crew.workers:
                if worker.answer is None:
                    self._send(worker)
            asked = {worker.answer: worker for worker in self.crew.workers if worker.answer is not None}
            ready, _ = self.ray.wait(list(asked), num_returns=1, timeout=_POLL_SECONDS)
            self._tell()
            for answer in ready:
                self._hear(asked[answer], answer)
        return self.faults

    def _send(self, worker: _Worker) -> None:
        """The next visit to one that is free: what was fetched for it, the next in the row, or what was fetched for another."""
        checkpoint = worker.ahead or (self.waiting.popleft() if self.waiting else self._taken_over())
        worker.ahead = None
        if checkpoint is None:
            return
        worker.at = checkpoint
        concepts = [k.name for k in self.job.concepts if not self.run.done(self.job.units[checkpoint, k.name])]
        floor = []
        if not self.floored:
            floor, self.floored, worker.floor = [k.name for k in concepts_without_floor(self.job, self.run)], True, True
        worker.ahead = self.waiting.popleft() if self.waiting else None
        worker.answer = worker.actor.visit.remote(checkpoint, concepts, floor, worker.ahead)

    def _taken_over(self) -> Checkpoint | None:
        for other in self.crew.workers:
            if other.ahead is not None:
                checkpoint, other.ahead = other.ahead, None
                return checkpoint
        return None

    def _hear(self, worker: _Worker, answer: Any) -> None:
        errors = self.ray.exceptions
        try:
            found = self.ray.get(answer)
        except errors.RayTaskError:
            raise  # not the worker died: the program is wrong
        except errors.RayError as error:
            self._bury(worker, error)
            return
        worker.answer = None
        if isinstance(found, str):
            raise BadInput(found)
        worker.deaths = 0
        if isinstance(found, VisitResult):
            self._gather()
            worker.at, worker.floor, worker.said = None, False, None
            if found.refused:
                raise BadInput(found.refused)
            self.floored = self.floored and not found.floor_left
            self.faults += [found.fault] if found.fault else []

    def _bury(self, worker: _Worker, error: Exception) -> None:
        """What it finished is kept, what it had in hand goes to another one."""
        out_of_memory = isinstance(error, self.ray.exceptions.OutOfMemoryError) or "low on memory" in str(error)
        why = "the machine ran out of memory" if out_of_memory else "it was killed, or ended by itself"
        self.crew.dismiss(worker)
        wait_for_dying_workers(self.run, worker.name)
        self._gather()
        if worker.ahead is not None:
            self.waiting.appendleft(worker.ahead)
        if worker.at is None:
            worker.deaths += 1
            if worker.deaths >= _MAX_ATTEMPTS:
                raise BadInput(f"no worker stays alive on this cluster ({why}). Ray's own words: {_brief(error)}")
        elif any(not self.run.done(self.job.units[worker.at, k.name]) for k in self.job.concepts):
            self.died[worker.at] += 1
            self.floored = self.floored and not worker.floor
            if self.died[worker.at] < _MAX_ATTEMPTS:
                self.waiting.appendleft(worker.at)
            else:
                self._give_up(worker.at, why)
        self.crew.again(worker)

    def _give_up(self, checkpoint: Checkpoint, why: str) -> None:
        reason = (
            f"the worker that visited {checkpoint.name} died {_MAX_ATTEMPTS} times ({why}). Run the same command again with fewer "
            "--workers or more memory: what is done stays."
        )
        self.faults.append(Failure(checkpoint.name, checkpoint.stage, reason))
        self.run.log({"checkpoint": checkpoint.name, "stage": checkpoint.stage, "failed": reason})

    def _gather(self) -> None:
        certificate = gather_shards(self.run).parity
        if certificate and not self.run.about.get("parity"):
            self.run.describe(self.run.about | {"parity": certificate})

    def _tell(self) -> None:
        """Say what the workers say, without waiting for any of them."""
        for worker in self.crew.workers:
            if worker.told is not None:
                ready, _ = self.ray.wait([worker.told], timeout=0)
                if ready:
                    with contextlib.suppress(self.ray.exceptions.RayError):
                        worker.said = self.ray.get(worker.told)
                    worker.told = None
            elif worker.at is not None:
                worker.told = worker.actor.now.options(concurrency_group="watch").remote()
        at = [worker for worker in self.crew.workers if worker.at is not None]
        done = len(self.job.checkpoints) - len(self.waiting) - len(at) - sum(w.ahead is not None for w in at)
        names = ", ".join(worker.at.name for worker in at if worker.at) or f"{len(self.crew.workers)} workers"
        what = " / ".join(worker.said.what for worker in at if worker.said) or ("loading" if at else "are starting")
        parts = [worker.said.done / worker.said.total for worker in at if worker.said and worker.said.total]
        self.how.watch(TraceProgress(names, done, len(self.job.checkpoints), what, int(100 * sum(parts)), 100))


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:300]
