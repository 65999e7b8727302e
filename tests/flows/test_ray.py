"""All executors give the same rows, killed Ray workers lose nothing, and the GPUs of a model are on one machine."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.study.study import plan_study, run_study
from ontogeny.jobs.trace import ray_cluster as clusters
from ontogeny.jobs.trace.execution import TraceExecution
from ontogeny.jobs.trace.plan import plan_trace
from ontogeny.jobs.trace.ray_cluster import RayCluster, WorkerLayout, plan_workers
from ontogeny.jobs.trace.ray_worker import RayWorker, run_digest
from ontogeny.jobs.trace.shards import Shard
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.models.loading import ModelOptions
from ontogeny.storage.run import Run
from tests.faults.on_ray import workers_of
from tests.helpers.planted_lineages import planted, save_run
from tests.helpers.trace_runs import QUICK, same, save_five, units

SHORT = {"steps": 60}
"""A study of half a second a seed."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_five(home)
    network = planted(8.0)
    network.get_input_embeddings().weight.data[5] = torch.nan
    network.save_pretrained(home / "five" / "checkpoint-4")
    return home


@pytest.fixture(scope="module")
def once(home: Path) -> Run:
    return traced(home, home / "once")


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One local cluster for all tests of this file, with four GPUs that only its book-keeping knows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'ontogeny[ray]'")
        ray.init(
            num_cpus=4,
            num_gpus=4,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100 * 10**6,
            _temp_dir=str(tmp_path_factory.getbasetemp()),
        )
        yield ray
        ray.shutdown()


def traced(home: Path, out: Path, **how) -> Run:
    concepts = [Concept.from_file(home / name) for name in ("one.csv", "two.csv")]
    return trace(Lineage.open(home / "five"), concepts, out, QUICK, **how)


def test_executors_give_equal_rows_even_if_a_worker_is_killed(home, once, ray, tmp_path):
    killed: list[int] = []
    over = threading.Event()

    def strike() -> None:
        while not killed and not over.wait(0.05):
            for worker in workers_of(os.getpid())[:1]:
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)

    striker = threading.Thread(target=strike)
    striker.start()
    try:
        on_ray = traced(home, tmp_path / "ray", cluster=RayCluster(workers=2))
    finally:
        over.set()
        striker.join()
    assert killed
    for share in ("0/2", "1/2"):
        shares = traced(home, tmp_path / "shares", shard=Shard.parse(share))
    same(on_ray, once)
    same(shares, once)
    assert len(units(on_ray)) == len(set(units(on_ray)))
    assert {line["shard"] for line in on_ray.ledger()} <= {"ray-0-of-2", "ray-1-of-2"}
    assert on_ray.about["finished"]
    assert [failure["checkpoint"] for failure in once.about["failures"]] == ["checkpoint-4"]
    assert on_ray.about["failures"] == shares.about["failures"] == once.about["failures"]
    assert on_ray.about["parity"]["holds"]
    assert not (on_ray.folder / "shards").exists()


def test_run_grows_on_ray_and_step_0_replaces_the_floor(home, ray, tmp_path):
    save_run(tmp_path / "run", {2: 4.0, 3: 8.0})
    concept = [Concept.from_file(home / "one.csv")]
    grown = {}
    trace(Lineage.open(tmp_path / "run"), concept, tmp_path / "here", QUICK)
    shutil.copytree(tmp_path / "here", tmp_path / "ray")
    save_run(tmp_path / "run", {0: 0.0})
    planted(0.0, fresh=True).save_pretrained(tmp_path / "run" / "checkpoint-0")
    for name, how in (("here", {}), ("ray", {"cluster": RayCluster(workers=1)})):
        grown[name] = trace(Lineage.open(tmp_path / "run"), concept, tmp_path / name, QUICK, **how)
    same(grown["ray"], grown["here"])
    assert set(grown["here"].records("control = 'untrained'").unit) == {grown["here"].ledger()[-1]["units"][0]}


def test_study_on_ray_has_the_rows_of_one_process_even_if_a_worker_is_killed(ray, tmp_path):
    (one_seed, plan), killed, over = (
        (plan_study("swing_by", "smoke", seeds=n, changes=SHORT) for n in (1, 2)),
        [],
        threading.Event(),
    )
    whole = run_study(plan, tmp_path / "whole")
    run_study(one_seed, tmp_path / "ray")

    def strike() -> None:
        while not killed and not over.wait(0.01):
            for worker in workers_of(os.getpid(), b"ray::_run_one_seed"):
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)

    striker = threading.Thread(target=strike)
    striker.start()
    try:
        on_ray = run_study(plan, tmp_path / "ray", cluster=RayCluster())
    finally:
        over.set()
        striker.join()
    assert killed
    columns = ["train_seed", "stage", "step", "metric", "control", "value"]
    one, other = (run.records()[columns].sort_values(columns, ignore_index=True) for run in (whole, on_ray))
    pd.testing.assert_frame_equal(one, other)
    assert on_ray.about["finished"]
    assert on_ray.about["study"]["seeds_in_run"] == [0, 1]
    assert not (on_ray.folder / "shards").exists()
    before = on_ray.ledger()
    assert sorted(line["seed"] for line in before) == [0, 1]
    assert run_study(plan, tmp_path / "ray", cluster=RayCluster()).ledger() == before  # nothing is computed again


# --- placement --------------------------------------------------------------------------------------------------------------


class Seat:
    """A worker that only says where it sits."""

    def where(self) -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_model_gets_its_gpus_in_one_bundle(ray):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    given = plan_workers(clusters.cluster_nodes(ray), RayCluster(gpus_per_model=2), visits=9)
    assert (given.workers, given.bundle) == (2, {"CPU": 1, "GPU": 2})
    made = [clusters.reserve_worker(ray, Seat, given) for _ in range(given.workers)]
    seats = [kind.remote() for kind, _ in made]
    assert sorted(ray.get([seat.where.remote() for seat in seats])) == ["0,1", "2,3"]
    for _, group in made:
        told = ray.util.placement_group_table(group)
        assert told["strategy"] == "STRICT_PACK"
        assert told["bundles"] == {0: {"CPU": 1.0, "GPU": 2.0}}
    # There is no room for a third: all GPUs are taken.
    _, third = clusters.reserve_worker(ray, Seat, given)
    assert not third.wait(1)
    for seat in seats:
        ray.kill(seat)
    for group in [group for _, group in made] + [third]:
        clusters.release_worker(ray, group)


@pytest.mark.parametrize(
    ("machines", "asked", "visits", "expected"),
    [
        ([(64, 8)], RayCluster(gpus_per_model=1), 99, (8, 1, 8)),
        ([(64, 8)], RayCluster(gpus_per_model=3), 99, (2, 1, 32)),  # 3 + 3, the last two are too few
        ([(64, 8), (32, 4), (16, 0)], RayCluster(gpus_per_model=4), 99, (3, 1, 32)),
        ([(64, 8)], RayCluster(gpus_per_model=2, workers=3), 99, (3, 1, 16)),
        ([(64, 8)], RayCluster(gpus_per_model=2), 1, (1, 1, 16)),
        ([(16, 0)], RayCluster(), 99, (1, 16, 16)),
        ([(16, 0), (8, 0), (16, 0)], RayCluster(), 99, (3, 8, 8)),
        ([(16, 0)], RayCluster(workers=4), 99, (4, 4, 4)),
        ([(2, 0)], RayCluster(workers=9), 99, (2, 1, 1)),
    ],
)
def test_workers_fit_the_machines(machines, asked, visits, expected):
    found = plan_workers([{"CPU": cpu, "GPU": gpu} for cpu, gpu in machines], asked, visits=visits)
    assert (found.workers, found.cpus, found.threads) == expected


def test_workers_share_the_threads_of_the_process():
    assert plan_workers([{"CPU": 16}], RayCluster(), visits=9, threads=3) == WorkerLayout(1, 0, 16, 3)
    assert plan_workers([{"CPU": 16}], RayCluster(workers=4), visits=9, threads=3).threads == 1


# --- refusals ---------------------------------------------------------------------------------------------------------------


def test_rejects_model_larger_than_any_machine():
    with pytest.raises(
        BadInput, match="`gpus_per_model` must be at most 2, the GPUs of the largest machine of this cluster, got 4"
    ):
        plan_workers([{"CPU": 8, "GPU": 2}, {"CPU": 8}], RayCluster(gpus_per_model=4), visits=9)


@pytest.fixture
def worker(home, tmp_path, monkeypatch):
    """A worker in this process, and what it should find."""
    monkeypatch.chdir(tmp_path)
    job = plan_trace(Lineage.open(home / "five"), [Concept.from_file(home / "one.csv")], QUICK)
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    run.describe({"lineage": {}, "concepts": [], "settings": {}})

    def make(device: str = "cpu", where: Path = tmp_path) -> str | None:
        execution = TraceExecution(ModelOptions(device))
        return RayWorker(job, where / "run", "ray-0-of-1", execution, 1, where).why_unusable(expected)

    expected = run_digest(run)
    return make


def test_worker_rejects_machine_without_files_or_with_other_versions(worker, home, tmp_path, monkeypatch):
    assert worker() is None
    assert f"does not see {tmp_path / 'gone'}" in worker(where=tmp_path / "gone")
    (tmp_path / "other").mkdir()
    assert f"does not see {tmp_path / 'other' / 'run' / 'run.json'}" in worker(where=tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr("ontogeny.jobs.trace.ray_worker.__version__", "0.0.0")
        assert "another version of ontogeny or torch" in worker()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", lambda path: path != home / "five" / "checkpoint-2")
        assert f"does not see {home / 'five' / 'checkpoint-2'}" in worker()


def test_worker_rejects_missing_gpus_and_accelerate(worker, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "Ray gave 2 GPUs to a worker on" in worker("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert worker("cuda") is None
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert "lacks accelerate" in worker("all")


def test_rejects_cluster_without_ray(home, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r"Ray is not installed: pip install 'ontogeny\[ray\]'"):
        traced(home, tmp_path / "run", cluster=RayCluster())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("address", ["ray://somewhere:10001", "127.0.0.1:1"])
def test_rejects_cluster_that_does_not_answer(address, monkeypatch):
    def init(**_: Any) -> None:
        raise ConnectionError("failed to connect to the GCS.\nand more")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    told = "client protocol" if "://" in address else f"no Ray cluster answers at `address` {address}"
    with pytest.raises(BadInput, match=told), clusters.connect_ray(RayCluster(address)):
        pass


def test_local_cluster_leaves_no_folder(monkeypatch):
    folders: list[Path] = []
    started: list[Path] = []

    def init(**how: Any) -> None:
        folders.append(Path(how["_temp_dir"]))
        started.append(folders[-1])

    def shutdown() -> None:
        assert started.pop().is_dir()  # its processes still write there

    ray = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=shutdown)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with clusters.connect_ray(RayCluster()):
        left = folders[-1].parent.with_name(f"{clusters._RAY_FOLDER_PREFIX}killed-{os.getpid()}")
        left.mkdir()
        os.utime(left, (0, 0))
        with clusters.connect_ray(RayCluster()):
            assert folders[0] != folders[1]
            assert not left.exists()
        assert folders[0].is_dir()  # another's, at work
    assert not any(folder.parent.exists() for folder in folders)


def test_rejects_shard_with_cluster(home, tmp_path):
    with pytest.raises(BadInput, match="`shard` must not be set together with a Ray cluster"):
        traced(home, tmp_path / "run", cluster=RayCluster(), shard=Shard.parse("0/2"))


def reachable(raylet: int) -> tuple[str, set[str]]:
    """The mode of the folder of a local cluster, and the addresses that its processes listen on, as /proc writes them."""
    words = Path(f"/proc/{raylet}/cmdline").read_text()
    session = re.search(r"(/[^\0=]*/ontogeny-ray-[^/]+)/ray/session_[^/\0]+", words)
    assert session, words
    inodes = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if (held := os.readlink(link)).startswith("socket:") and session[0] in link.parents[1].joinpath(
                "cmdline"
            ).read_text():
                inodes.add(held[8:-1])
        except OSError:  # it has ended
            continue
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    hosts = {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[9] in inodes}
    return oct(Path(session[1]).stat().st_mode & 0o777), hosts


def test_local_cluster_is_closed_to_others_and_sigterm_to_its_driver_is_one_line(home: Path, tmp_path: Path) -> None:
    """It listens on the loopback interface only, and its folder belongs to this user.

    Ray's own handler aborts the driver with a C++ stack, exit 134, and leaves its processes.
    """
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'ontogeny[ray]'")
    texts = [word for name in ("one.csv", "two.csv") for word in ("-c", str(home / name))]
    command = [str(Path(sys.executable).parent / "ontogeny"), "trace", str(home / "five"), *texts, "--sites", "resid"]
    on_ray = [*command, "--quiet", "--out", str(tmp_path / "run"), "--executor", "ray", "--workers", "1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(on_ray, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        until = time.monotonic() + 120
        while not (busy := workers_of(driver.pid)) and driver.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if busy:
            os.kill(busy[0], signal.SIGSTOP)  # the trace does not end while its cluster is looked at
            raylet = int(Path(f"/proc/{busy[0]}/stat").read_text().rsplit(")", 1)[1].split()[1])
            mode, hosts = reachable(raylet)
            os.kill(busy[0], signal.SIGCONT)
        driver.terminate()
        out, said = driver.communicate(timeout=120)
    assert busy, said
    assert mode == "0o700"
    assert hosts
    assert hosts <= {"0100007F", "0000000000000000FFFF00000100007F", "0" * 24 + "01000000"}
    assert driver.returncode == 128 + signal.SIGTERM, said
    assert said == "ontogeny: terminated. Start the same command again: finished work is kept.\n"
    assert not out.strip()
    assert not any(Path(f"/proc/{worker}").exists() for worker in busy)
