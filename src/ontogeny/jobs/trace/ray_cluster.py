"""Ray, on this machine or on many, and who gets what of it: one bundle a model, its GPUs on one machine (STRICT_PACK).

Ray is an extra: it is imported here alone, and only when a cluster is asked for. A local one is silent, sends nothing home, and
leaves no folder behind.
"""

import contextlib
import importlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ontogeny.errors import BadInput
from ontogeny.storage.lock import is_locked, run_lock

_RAY_FOLDER_PREFIX = "ontogeny-ray-"
_SECONDS_PER_MINUTE = 60
_OBJECT_STORE_BYTES = 100 * 10**6
"""Bytes of shared memory; nothing but a job's description passes through it."""


@dataclass(frozen=True)
class RayCluster:
    """What is asked for."""

    address: str | None = None
    """Of a cluster that runs, `host:6379` or `auto`; None starts one on this machine, for as long as the trace takes."""
    gpus_per_model: int = 0
    workers: int | None = None
    """None: as many as the GPUs allow; without GPUs one a machine."""

    @property
    def device(self) -> str | None:
        """Where a model stands inside of a worker, which sees no GPUs but its own."""
        return {0: None, 1: "cuda"}.get(self.gpus_per_model, "auto")


@dataclass(frozen=True)
class WorkerLayout:
    """What is given."""

    workers: int
    gpus: int
    """Of a worker, all on one machine."""
    cpus: int
    """That a worker reserves."""
    threads: int

    @property
    def bundle(self) -> dict[str, int]:
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


def plan_workers(
    machines: Sequence[Mapping[str, float]], asked: RayCluster, *, visits: int, threads: int | None = None
) -> WorkerLayout:
    """How many models, and what each gets, from the resources of each machine. `threads`: at most so many in all.

    Raises:
        BadInput: no machine has room for one model.
    """
    k = asked.gpus_per_model
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    gpus = [int(machine.get("GPU", 0)) for machine in machines]
    if k and max(gpus) < k:
        raise BadInput(
            f"no machine of this cluster has {k} GPUs for one model, the largest has {max(gpus)}. Lower --gpus-per-model."
        )
    room = sum(n // k for n in gpus) if k else sum(cores)
    workers = max(1, min(room, asked.workers or (room if k else len(machines)), visits))
    together = [(c, n // k if k else -(-workers // len(machines))) for c, n in zip(cores, gpus, strict=True) if n >= k]
    share = min(c // models for c, models in together)
    # A GPU is scarce enough to keep workers apart; without one it is their cores that spread them over the machines.
    cpus = 1 if k else max(1, share)
    return WorkerLayout(workers, k, cpus, max(1, share if threads is None else min(share, threads // workers)))


@contextlib.contextmanager
def connect_ray(asked: RayCluster) -> Iterator[Any]:
    """The module `ray`, connected; a program that already is stays so, what is begun here also ends here.

    Raises:
        BadInput: Ray is not installed, or no cluster answers at the address.
    """
    if str(asked.address).startswith("ray://"):
        raise BadInput(
            f"{asked.address} is Ray's client protocol, over which this does not run. Start the trace on a machine of the "
            "cluster, with --address auto."
        )
    ray = _import_ray(asked)
    if ray.is_initialized():
        yield ray
        return
    with contextlib.ExitStack() as held:
        folder = None if asked.address else held.enter_context(_own_folder())
        held.callback(ray.shutdown)
        _start_ray(ray, asked, folder)
        yield ray


def is_local_cluster(asked: RayCluster, ray: Any) -> bool:
    return asked.address is None and len(cluster_nodes(ray)) == 1


def cluster_nodes(ray: Any) -> list[dict[str, float]]:
    """The resources of each machine that answers."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def reserve_worker(ray: Any, kind: Any, given: WorkerLayout) -> tuple[Any, Any]:
    """A class whose next worker gets one bundle of its own, and the group that reserves it."""
    groups = importlib.import_module("ray.util.placement_group")
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    group = groups.placement_group([given.bundle], strategy="STRICT_PACK")
    where = strategies.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    # Ray restarts nobody: whoever hands out the work knows what a worker that died had in hand.
    made = ray.remote(concurrency_groups={"watch": 1})(kind).options(
        num_cpus=given.cpus, num_gpus=given.gpus, max_restarts=0, scheduling_strategy=where
    )
    return made, group


def release_worker(ray: Any, group: Any) -> None:
    with contextlib.suppress(Exception):  # the cluster may be gone already
        importlib.import_module("ray.util.placement_group").remove_placement_group(group)


def _import_ray(asked: RayCluster) -> Any:
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else Ray writes of workers that died onto standard output
    }
    if asked.address is None and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        # Nobody else may run code on it, and Ray need not keep a token in the user's home. It reads this once, when it is imported.
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in settings.items():
        os.environ.setdefault(name, value)  # read when Ray is imported, and by the processes that it starts
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise BadInput("Ray is not installed. Install it with: pip install 'ontogeny[ray]'") from None


def _start_ray(ray: Any, asked: RayCluster, folder: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if asked.address:
        try:
            ray.init(address=asked.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0].rstrip(".")
            raise BadInput(
                f"no Ray cluster answers at {asked.address} ({first[:160]}). Start one with `ray start --head`, set "
                "RAY_AUTH_MODE=token where it asks for one, or leave --address out."
            ) from None
        return
    cores = max(os.cpu_count() or 1, asked.workers or 1)
    ray.init(
        num_cpus=cores, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, _temp_dir=folder, **quiet
    )


@contextlib.contextmanager
def _own_folder() -> Iterator[str]:
    """A folder for Ray's sockets, whose names must be short, and its logs; those of processes that were killed are swept."""
    above = Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())
    for left in above.glob(f"{_RAY_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's
            # One that is just being made is not locked yet.
            if left.stat().st_mtime < time.time() - _SECONDS_PER_MINUTE and not is_locked(left):
                shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=_RAY_FOLDER_PREFIX, dir=above))
    try:
        with run_lock(folder):
            yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def available_threads() -> int:
    return torch.get_num_threads()
