"""Ray executor: one worker per model; idle workers take the next checkpoint, and failed workers are replaced.

The driver, which started the trace, holds the run. It assigns checkpoints one by one, and gathers a worker's finished units before it
assigns the next one. The checkpoint of a worker that died is visited again for its missing units; after a few times it is a failure.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.progress import TraceProgress, ignore_progress
from ontogeny.jobs.resumable import log_failure
from ontogeny.jobs.trace import ray_cluster
from ontogeny.jobs.trace.execution import TraceExecution, concepts_without_floor
from ontogeny.jobs.trace.plan import TracePlan
from ontogeny.jobs.trace.ray_worker import RayWorker, VisitResult, run_digest
from ontogeny.jobs.trace.shards import choose_certificate, gather_shards, wait_for_dying_workers
from ontogeny.lineage import Checkpoint
from ontogeny.storage.failures import Failure
from ontogeny.storage.run import Run

_MAX_ATTEMPTS = 3
"""Workers that may die over one checkpoint, or before they are ready."""
_POLL_SECONDS = 0.5


def visit_all_on_ray(
    plan: TracePlan, run: Run, execution: TraceExecution, missing: Mapping[Checkpoint, list[Concept]]
) -> list[Failure]:
    """Visit each checkpoint that lacks a unit, on as many workers as fit; see `CheckpointExecutor.visit_all`."""
    cluster = execution.cluster
    assert cluster is not None
    if not missing:
        return []
    total = len(plan.checkpoints)
    execution.on_progress(TraceProgress("Ray", total - len(missing), total, "is starting"))
    with ray_cluster.connect_ray(cluster) as ray:
        threads = torch.get_num_threads() if ray_cluster.is_local_cluster(cluster, ray) else None
        layout = ray_cluster.plan_workers(ray_cluster.cluster_nodes(ray), cluster, visits=len(missing), threads=threads)
        return _Driver(ray, plan, run, execution, layout, missing).visit_all()


@dataclass
class _Worker:
    """The driver's view of a worker."""

    name: str
    actor: Any
    group: Any
    pending: Any
    """Reference to the result of its check or visit; None while it is idle."""
    checkpoint: Checkpoint | None = None
    prefetch: Checkpoint | None = None
    """The checkpoint that it fetches meanwhile; an idle worker may take it over."""
    floor: bool = False
    """Whether it measures the random initialisation."""
    deaths: int = 0
    """Number of its predecessors that died before they were ready."""
    progress_request: Any = None
    progress: TraceProgress | None = None


class _Driver:
    """Starts, replaces and stops workers, and assigns checkpoints to them."""

    def __init__(
        self,
        ray: Any,
        plan: TracePlan,
        run: Run,
        execution: TraceExecution,
        layout: ray_cluster.WorkerLayout,
        missing: Iterable[Checkpoint],
    ) -> None:
        self.ray, self.plan, self.run, self.execution, self.layout = ray, plan, run, execution, layout
        model = replace(execution.model, device=execution.device)
        self.remote_plan = ray.put(plan)
        self.remote_execution = replace(execution, model=model, on_progress=ignore_progress, cluster=None)
        self.home, self.expected = Path.cwd(), run_digest(run)
        self.waiting = deque(missing)
        self.failures: list[Failure] = []
        self.deaths: Counter[Checkpoint] = Counter()
        self.floor_assigned = False
        self.workers = [self._start(i) for i in range(layout.workers)]

    def visit_all(self) -> list[Failure]:
        """Visit all waiting checkpoints. At the end, also after an error, workers are stopped and finished units gathered."""
        try:
            while self.waiting or any(worker.checkpoint or worker.prefetch for worker in self.workers):
                for worker in self.workers:
                    if worker.pending is None:
                        self._assign(worker)
                pending = {worker.pending: worker for worker in self.workers if worker.pending is not None}
                ready, _ = self.ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS)
                self._report_progress()
                for reference in ready:
                    self._handle_result(pending[reference], reference)
            ended = [worker.actor.delete_prefetched.remote() for worker in self.workers if worker.pending is None]
            self.ray.wait(ended, num_returns=len(ended), timeout=60)
        finally:
            for worker in self.workers:
                self._stop(worker)
            wait_for_dying_workers(self.run)
            self._gather()
        return self.failures

    def _start(self, index: int) -> _Worker:
        kind, group = ray_cluster.reserve_worker(self.ray, RayWorker, self.layout)
        name, folder = f"ray-{index}-of-{self.layout.workers}", self.run.folder.resolve()
        actor = kind.remote(self.remote_plan, folder, name, self.remote_execution, self.layout.threads, self.home)
        return _Worker(name, actor, group, actor.why_unusable.remote(self.expected))

    def _replace(self, worker: _Worker) -> None:
        """Start another worker instead."""
        self._stop(worker)
        index = self.workers.index(worker)
        self.workers[index] = self._start(index)
        self.workers[index].deaths = worker.deaths

    def _stop(self, worker: _Worker) -> None:
        with contextlib.suppress(Exception):  # it may be dead
            self.ray.kill(worker.actor, no_restart=True)
        ray_cluster.release_worker(self.ray, worker.group)

    def _assign(self, worker: _Worker) -> None:
        """Give an idle worker the checkpoint that it has fetched, the next one, or one that another worker has fetched."""
        checkpoint = worker.prefetch or (self.waiting.popleft() if self.waiting else self._take_prefetched())
        worker.prefetch = None
        if checkpoint is None:
            return
        concepts = [k.name for k in self.plan.concepts if not self.run.done(self.plan.units[checkpoint, k.name])]
        floor = []
        if not self.floor_assigned:
            floor = [k.name for k in concepts_without_floor(self.plan, self.run)]
            self.floor_assigned = worker.floor = True
        worker.checkpoint = checkpoint
        worker.prefetch = self.waiting.popleft() if self.waiting else None
        worker.pending = worker.actor.visit.remote(checkpoint, concepts, floor, worker.prefetch)

    def _take_prefetched(self) -> Checkpoint | None:
        for other in self.workers:
            if other.prefetch is not None:
                checkpoint, other.prefetch = other.prefetch, None
                return checkpoint
        return None

    def _handle_result(self, worker: _Worker, reference: Any) -> None:
        try:
            result = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError:
            raise  # an error in our code, not a dead worker
        except self.ray.exceptions.RayError as error:
            self._replace_dead_worker(worker, error)
            return
        worker.pending = None
        if isinstance(result, str):
            raise BadInput(result)
        worker.deaths = 0
        if isinstance(result, VisitResult):
            self._gather()
            worker.checkpoint, worker.floor, worker.progress = None, False, None
            if result.bad_input:
                raise BadInput(result.bad_input)
            self.floor_assigned = self.floor_assigned and not result.floor_missing
            self.failures += result.failures

    def _replace_dead_worker(self, worker: _Worker, error: Exception) -> None:
        """Keep the units that it finished, and put its checkpoints back."""
        out_of_memory = isinstance(error, self.ray.exceptions.OutOfMemoryError) or "low on memory" in str(error)
        why = "the machine ran out of memory" if out_of_memory else "it was killed, or ended by itself"
        self._stop(worker)
        wait_for_dying_workers(self.run, worker.name)
        self._gather()
        if worker.prefetch is not None:
            self.waiting.appendleft(worker.prefetch)
        if worker.checkpoint is None:
            worker.deaths += 1
            if worker.deaths >= _MAX_ATTEMPTS:
                raise BadInput(f"no worker stays alive on this cluster ({why}). Ray reports: {_brief(error)}")
        elif any(not self.run.done(self.plan.units[worker.checkpoint, k.name]) for k in self.plan.concepts):
            self.deaths[worker.checkpoint] += 1
            self.floor_assigned = self.floor_assigned and not worker.floor
            if self.deaths[worker.checkpoint] < _MAX_ATTEMPTS:
                self.waiting.appendleft(worker.checkpoint)
            else:
                self._give_up(worker.checkpoint, why)
        self._replace(worker)

    def _give_up(self, checkpoint: Checkpoint, why: str) -> None:
        reason = (
            f"the worker that visited {checkpoint.name} died {_MAX_ATTEMPTS} times ({why}): run the same command again with fewer "
            "`workers` or more memory; finished units are kept."
        )
        self.failures.append(log_failure(self.run, Failure(checkpoint.name, checkpoint.stage, reason)))

    def _gather(self) -> None:
        certificates, known = gather_shards(self.run).certificates, self.run.about.get("parity")
        certificate = choose_certificate(known, certificates, [checkpoint.name for checkpoint in self.plan.checkpoints])
        if certificate != known:
            self.run.describe(self.run.about | {"parity": certificate})

    def _report_progress(self) -> None:
        """Report the progress of all workers without waiting for any of them."""
        for worker in self.workers:
            if worker.progress_request is not None:
                ready, _ = self.ray.wait([worker.progress_request], timeout=0)
                if ready:
                    with contextlib.suppress(self.ray.exceptions.RayError):
                        worker.progress = self.ray.get(worker.progress_request)
                    worker.progress_request = None
            elif worker.checkpoint is not None:
                worker.progress_request = worker.actor.progress.options(concurrency_group="watch").remote()
        busy = [worker for worker in self.workers if worker.checkpoint is not None]
        total = len(self.plan.checkpoints)
        done = total - len(self.waiting) - len(busy) - sum(worker.prefetch is not None for worker in busy)
        names = ", ".join(worker.checkpoint.name for worker in busy if worker.checkpoint)
        progress = [worker.progress for worker in busy if worker.progress]
        activity = " / ".join(p.activity for p in progress) or ("loading" if busy else "are starting")
        part = int(100 * sum(p.done / p.total for p in progress if p.total))
        names = names or f"{len(self.workers)} workers"
        self.execution.on_progress(TraceProgress(names, done, total, activity, part, 100))


def _brief(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:300]
