"""Connect to Ray, and place models: one bundle per model, with all its GPUs on one machine (STRICT_PACK).

Ray is an extra. It is imported only here, and only if a cluster is asked for. A local cluster prints nothing, sends no usage
statistics, and removes its folder.
"""

import contextlib
import importlib
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ontogeny.errors import BadInput
from ontogeny.storage.lock import is_locked, run_lock

_RAY_FOLDER_PREFIX = "ontogeny-ray-"
_TERMINATED = 128 + signal.SIGTERM
_SECONDS_PER_MINUTE = 60
_OBJECT_STORE_BYTES = 100 * 10**6
"""Bytes of shared memory; nothing but a job's description passes through it."""


@dataclass(frozen=True)
class RayCluster:
    """The cluster that a trace asks for."""

    address: str | None = None
    """Address of a running cluster, `host:6379` or `auto`; None starts one on this machine for the duration of the trace."""
    gpus_per_model: int = 0
    workers: int | None = None
    """None: as many as the GPUs allow; without GPUs one per machine."""

    @property
    def device(self) -> str | None:
        """Device of the model in a worker, which sees only its own GPUs."""
        return {0: None, 1: "cuda"}.get(self.gpus_per_model, "all")


@dataclass(frozen=True)
class WorkerLayout:
    """Number of workers, and the resources of each."""

    workers: int
    gpus: int
    """All on one machine."""
    cpus: int
    threads: int

    @property
    def bundle(self) -> dict[str, int]:
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


def plan_workers(
    machines: Sequence[Mapping[str, float]], asked: RayCluster, *, visits: int, threads: int | None = None
) -> WorkerLayout:
    """Number of workers and their resources, from the resources of each machine; `threads` limits the threads of all workers together.

    Raises:
        BadInput: no machine has enough GPUs for one model.
    """
    k = asked.gpus_per_model
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    gpus = [int(machine.get("GPU", 0)) for machine in machines]
    if k and max(gpus) < k:
        raise BadInput(
            f"`gpus_per_model` must be at most {max(gpus)}, the GPUs of the largest machine of this cluster, got {k}: lower it."
        )
    room = sum(n // k for n in gpus) if k else sum(cores)
    workers = max(1, min(room, asked.workers or (room if k else len(machines)), visits))
    together = [(c, n // k if k else -(-workers // len(machines))) for c, n in zip(cores, gpus, strict=True) if n >= k]
    share = min(c // models for c, models in together)
    # GPUs keep workers apart by themselves; without GPUs, reserved cores spread them over the machines.
    cpus = 1 if k else max(1, share)
    return WorkerLayout(workers, k, cpus, max(1, share if threads is None else min(share, threads // workers)))


@contextlib.contextmanager
def connect_ray(asked: RayCluster) -> Iterator[Any]:
    """The module `ray`, connected to a cluster. An existing connection of this program is used and kept.

    Raises:
        BadInput: Ray is not installed, or no cluster answers at the address.
    """
    if str(asked.address).startswith("ray://"):
        raise BadInput(
            f"`address` must not use Ray's client protocol, got {asked.address}: start the trace on a machine of the cluster with the "
            "address auto."
        )
    ray = _import_ray(asked)
    if ray.is_initialized():
        yield ray
        return
    with contextlib.ExitStack() as stack:
        folder = None if asked.address else stack.enter_context(_own_folder())
        stack.callback(ray.shutdown)
        _start_ray(ray, asked, folder)
        stack.enter_context(_end_on_sigterm())
        yield ray


def is_local_cluster(asked: RayCluster, ray: Any) -> bool:
    return asked.address is None and len(cluster_nodes(ray)) == 1


def cluster_nodes(ray: Any) -> list[dict[str, float]]:
    """The resources of each live machine."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def reserve_worker(ray: Any, kind: Any, layout: WorkerLayout) -> tuple[Any, Any]:
    """The actor class for one worker in a bundle of its own, and the placement group that reserves the bundle."""
    groups = importlib.import_module("ray.util.placement_group")
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    group = groups.placement_group([layout.bundle], strategy="STRICT_PACK")
    placement = strategies.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    # Ray restarts no worker: the driver does, because it knows which checkpoint a dead worker had.
    actor = ray.remote(concurrency_groups={"watch": 1})(kind).options(
        num_cpus=layout.cpus, num_gpus=layout.gpus, max_restarts=0, scheduling_strategy=placement
    )
    return actor, group


def release_worker(ray: Any, group: Any) -> None:
    with contextlib.suppress(Exception):  # the cluster may be gone already
        importlib.import_module("ray.util.placement_group").remove_placement_group(group)


def _import_ray(asked: RayCluster) -> Any:
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # otherwise Ray prints messages about dead workers on standard output
    }
    if asked.address is None and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        # A random token keeps other users from running code on it, without a token file in the user's home. Ray reads it on import.
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in settings.items():
        os.environ.setdefault(name, value)  # read on import, and by the processes that Ray starts
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise BadInput("Ray is not installed: pip install 'ontogeny[ray]'") from None


def _start_ray(ray: Any, asked: RayCluster, folder: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if asked.address:
        try:
            ray.init(address=asked.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0].rstrip(".")
            raise BadInput(
                f"no Ray cluster answers at `address` {asked.address} ({first[:160]}): start the head of one with `ray start`, set "
                "RAY_AUTH_MODE=token if it needs a token, or leave the address out."
            ) from None
        return
    cores = max(os.cpu_count() or 1, asked.workers or 1)
    with _loopback():
        ray.init(
            num_cpus=cores, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, _temp_dir=folder, **quiet
        )


@contextlib.contextmanager
def _end_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the program as an exit with 143, so that Ray is shut down too; Ray's own handler aborts the driver."""
    received = threading.Event()

    def end(_signal: int, _frame: object) -> None:
        received.set()
        sys.exit(_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit:
        if received.is_set():
            sys.exit(_TERMINATED)  # Ray has put a code of its own in its place
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Let Ray start on 127.0.0.1, where its servers listen on the loopback interface only; by default they listen on all."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    constants.ENABLE_RAY_CLUSTER = False  # as on macOS and Windows, where Ray is on one machine
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _own_folder() -> Iterator[str]:
    """A folder for Ray's sockets, which need short paths, and its logs. Folders left by killed processes are removed."""
    above = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())
    for left in above.glob(f"{_RAY_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):  # it belongs to another user
            # A new folder is not locked yet.
            if left.stat().st_mtime < time.time() - _SECONDS_PER_MINUTE and not is_locked(left):
                _end_processes_of(left)
                shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=_RAY_FOLDER_PREFIX, dir=above))
    try:
        with run_lock(folder):
            # Ray lets everyone write to the folder that it is given: this one, inside a folder of this user only.
            (folder / "ray").mkdir()
            yield str(folder / "ray")
    finally:
        _end_processes_of(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _end_processes_of(folder: Path) -> None:
    """End the processes of Ray that were started with a folder of `_own_folder`, and outlived their driver or head."""
    name = os.fsencode(folder)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended by itself, or belongs to another user
            words = (process / "cmdline").read_bytes()
            if name + b"/" in words and b"ray" in words and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)
