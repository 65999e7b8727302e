"""Process pool of a job: independent tasks run side by side, each in a process of its own, and the caller writes their results.

Processes are forked from a server that has loaded the packages and computed nothing, so that no task leaves memory or state to the next
one. A process that is killed, for example because memory ran out, has its task run once more after all others, alone.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ontogeny.errors import BadInput
from ontogeny.jobs.progress import ProgressCallback, TraceProgress

_POLL_SECONDS = 0.5
_REPORT_SECONDS = 0.2
_NEW_PROCESS_BYTES = 2**29
"""Memory that the first processes are expected to need; later ones need as much as the largest so far."""


@dataclass(frozen=True)
class Task:
    """A function that runs in a process of its own."""

    name: str
    compute: Callable[..., Any]
    """A function of a module's top level, called with `arguments` and `on_activity`, a callback of activity, amount done, and total."""
    arguments: tuple[Any, ...]
    module: str = __name__
    """A module that the server loads beforehand, once for all tasks that need it."""


@dataclass(frozen=True)
class TaskResult:
    """The value that a task returned, or the reason for which it failed."""

    task: Task
    value: Any = None
    failure: str | None = None


@dataclass
class _Worker:
    task: Task
    process: BaseProcess
    connection: Connection
    activity: str = "starting"


def usable_cpus() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_processes(jobs: int, threads: int | None = None) -> None:
    """Check a number of processes, and of threads of each.

    Raises:
        BadInput: one of them is below 1, or together they need more than the usable CPUs.
    """
    for name, number in (("jobs", jobs), ("threads", threads)):
        if number is not None and number < 1:
            raise BadInput(f"`{name}` must be at least 1, got {number}.")
    if (needed := jobs * (threads or 1)) > usable_cpus() and needed > 1:
        each = f" of {threads} threads each" if threads and threads > 1 else ""
        processes = f"{jobs} process{'es' if jobs > 1 else ''}{each}"
        raise BadInput(
            f"`jobs` must fit the {usable_cpus()} CPUs of this process, got {processes}: give a smaller number."
        )


def run_tasks(
    tasks: Sequence[Task],
    *,
    jobs: int,
    threads: int = 1,
    done: int = 0,
    on_result: Callable[[TaskResult], None],
    on_progress: ProgressCallback,
) -> None:
    """Call `on_result` with the result of each task when it ends. An exception, such as an interruption, ends all processes.

    Args:
        jobs: Largest number of processes at a time; fewer run while memory is short.
        threads: Threads of torch and of the linear algebra libraries in each process.
        done: Tasks that were done before, for the progress.
    """
    context = multiprocessing.get_context(
        "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    )
    context.set_forkserver_preload([__name__, *{task.module for task in tasks}])
    waiting, killed, workers = deque(tasks), deque[Task](), list[_Worker]()
    total, largest = done + len(tasks), _NEW_PROCESS_BYTES
    try:
        while waiting or killed or workers:
            while waiting and len(workers) < jobs and (not workers or _spare_bytes() > largest):
                workers.append(_start(context, waiting.popleft(), threads))
            if killed and not waiting and not workers:
                workers.append(_start(context, killed[0], threads))
            _report(workers, done, total, on_progress)
            ready = wait([worker.connection for worker in workers], timeout=_POLL_SECONDS)
            for worker in [w for w in workers if w.connection in ready]:
                kind, content, peak = _receive(worker)
                largest = max(largest, peak)
                if kind == "activity":
                    worker.activity = content
                    continue
                workers.remove(worker)
                _end(worker)
                if kind == "killed" and worker.task not in killed:
                    killed.append(worker.task)
                    continue
                if worker.task in killed:
                    killed.remove(worker.task)
                done += 1
                if kind != "value":
                    on_progress(TraceProgress(f"{worker.task.name} failed", done, total, content))
                on_result(
                    TaskResult(worker.task, content) if kind == "value" else TaskResult(worker.task, None, content)
                )
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            _end(worker)


def _start(context: Any, task: Task, threads: int) -> _Worker:
    connection, other_end = context.Pipe(duplex=False)
    # The process loads the function itself, so that a module that fails to load is a failure of the task.
    content = pickle.dumps((task.compute, task.arguments))
    process = context.Process(target=_run_task, args=(other_end, content, threads), daemon=True)
    process.start()
    other_end.close()
    return _Worker(task, process, connection)


def _receive(worker: _Worker) -> tuple[str, Any, int]:
    """Kind of message, its content, and the largest memory of the process in bytes."""
    try:
        message: tuple[str, Any, int] = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode or 0
        if code < 0:
            return "killed", f"its process was ended by signal {-code}: free memory, or give a smaller `jobs`", 0
        return (
            "failure",
            f"its process ended with exit code {code}: in a script, call it below `if __name__ == '__main__'`",
            0,
        )
    return message


def _end(worker: _Worker) -> None:
    worker.process.join()
    worker.process.close()
    worker.connection.close()


def _report(workers: Sequence[_Worker], done: int, total: int, on_progress: ProgressCallback) -> None:
    names = ", ".join(worker.task.name for worker in workers)
    on_progress(TraceProgress(names, done, total, " / ".join(worker.activity for worker in workers)))


def _run_task(connection: Connection, content: bytes, threads: int) -> None:
    """Run a task in this process, and send its activities and its value."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the caller, which ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    last = 0.0

    def on_activity(activity: str, *_: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > _REPORT_SECONDS:
            last = now
            connection.send(("activity", activity, _peak_bytes()))

    try:
        compute, arguments = pickle.loads(content)
        with limited_threads(threads):
            answer = "value", compute(*arguments, on_activity=on_activity)
    except Exception as error:  # a study is code of any kind
        answer = "failure", _describe(error)
    connection.send((*answer, _peak_bytes()))


def _end_with_parent() -> None:
    """End this process when its parent ends, however that happens."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """Limit the threads of torch, if it is loaded, and of the linear algebra libraries in this block; None changes nothing."""
    if threads is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    try:
        if torch:
            torch.set_num_threads(threads)
        with threadpool_limits(threads):
            yield
    finally:
        if torch:
            torch.set_num_threads(before)


def _describe(error: Exception) -> str:
    """One line: the error, and for other errors than bad input the place that raised it."""
    message = " ".join(str(error).split())
    if isinstance(error, BadInput):
        return message
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {message}{place}"


def _peak_bytes() -> int:
    """Largest resident memory of this process so far; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _spare_bytes() -> float:
    """Memory that new processes can take, by the system and by the limit of the container; infinite where neither says."""
    spare = float("inf")
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        spare = 1024.0 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError, StopIteration):  # "max" where there is no limit
        limit, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        cache = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file"))
        spare = min(spare, float(limit - used + cache))
    return spare
