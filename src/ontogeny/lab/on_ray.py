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

from ontogeny.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.lab.cluster import Layout, connected, is_local, layout, machines, placed, release, threads_here
from ontogeny.lab.job import Fault, Job
from ontogeny.lab.progress import Progress, silent
from ontogeny.lab.replica import Replica, Visited, seen, settle
from ontogeny.lab.shards import gather
from ontogeny.lab.visitor import How, floorless
from ontogeny.lineage import Checkpoint
from ontogeny.run import Run

ATTEMPTS = 3
"""Workers that may die over one checkpoint, or before they begin."""
TICK = 0.5
"""Seconds between two looks at what the workers say."""


def visit_all(job: Job, run: Run, how: How, missing: Mapping[Checkpoint, list[Concept]]) -> list[Fault]:
    """Visit each checkpoint that lacks a unit, on as many workers as there is room for; as `Visitor.visit_all`."""
    assert how.cluster is not None
    if not missing:
        return []
    how.watch(Progress("Ray", len(job.checkpoints) - len(missing), len(job.checkpoints), "is starting"))
    with connected(how.cluster) as ray:
        most = threads_here() if is_local(how.cluster, ray) else None
        given = layout(machines(ray), how.cluster, visits=len(missing), threads=most)
        with _crew(ray, job, run, how, given) as crew:
            return _Round(ray, job, run, how, crew, deque(missing)).go()


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
    said: Progress | None = None


class _Crew:
    """Makes workers, and makes them again."""

    def __init__(self, ray: Any, job: Job, run: Run, how: How, given: Layout) -> None:
        self.ray, self.run, self.given = ray, run, given
        self.home, self.expected = Path.cwd(), seen(run)
        self.job = ray.put(job)
        self.how = replace(how, watch=silent, cluster=None, device=(how.cluster and how.cluster.device) or how.device)
        self.workers = [self.make(i) for i in range(given.workers)]

    def make(self, index: int) -> _Worker:
        kind, group = placed(self.ray, Replica, self.given)
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
        release(self.ray, worker.group)


@contextlib.contextmanager
def _crew(ray: Any, job: Job, run: Run, how: How, given: Layout) -> Iterator[_Crew]:
    """However it ends, no worker is left, and all that they finished is in the run."""
    crew = _Crew(ray, job, run, how, given)
    try:
        yield crew
        ended = [worker.actor.end.remote() for worker in crew.workers if worker.answer is None]
        ray.wait(ended, num_returns=len(ended), timeout=60)
    finally:
        for worker in crew.workers:
            crew.dismiss(worker)
        settle(run)
        gather(run)


@dataclass
class _Round:
    """One pass over what is missing."""

    ray: Any
    job: Job
    run: Run
    how: How
    crew: _Crew
    waiting: deque[Checkpoint]
    faults: list[Fault] = field(default_factory=list)
    died: Counter[Checkpoint] = field(default_factory=Counter)
    floored: bool = False
    """Whether the floor was tried."""

    def go(self) -> list[Fault]:
        while self.waiting or any(worker.at or worker.ahead for worker in self.crew.workers):
            for worker in self.crew.workers:
                if worker.answer is None:
                    self._send(worker)
            asked = {worker.answer: worker for worker in self.crew.workers if worker.answer is not None}
            ready, _ = self.ray.wait(list(asked), num_returns=1, timeout=TICK)
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
            floor, self.floored, worker.floor = [k.name for k in floorless(self.job, self.run)], True, True
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
        if isinstance(found, Visited):
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
        settle(self.run, worker.name)
        self._gather()
        if worker.ahead is not None:
            self.waiting.appendleft(worker.ahead)
        if worker.at is None:
            worker.deaths += 1
            if worker.deaths >= ATTEMPTS:
                raise BadInput(f"no worker stays alive on this cluster ({why}). Ray's own words: {_brief(error)}")
        elif any(not self.run.done(self.job.units[worker.at, k.name]) for k in self.job.concepts):
            self.died[worker.at] += 1
            self.floored = self.floored and not worker.floor
            if self.died[worker.at] < ATTEMPTS:
                self.waiting.appendleft(worker.at)
            else:
                self._give_up(worker.at, why)
        self.crew.again(worker)

    def _give_up(self, checkpoint: Checkpoint, why: str) -> None:
        reason = (
            f"the worker that visited {checkpoint.name} died {ATTEMPTS} times ({why}). Run the same command again with fewer "
            "--workers or more memory: what is done stays."
        )
        self.faults.append(Fault(checkpoint.name, checkpoint.stage, reason))
        self.run.log({"checkpoint": checkpoint.name, "stage": checkpoint.stage, "failed": reason})

    def _gather(self) -> None:
        certificate = gather(self.run).parity
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
        self.how.watch(Progress(names, done, len(self.job.checkpoints), what, int(100 * sum(parts)), 100))


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:300]
