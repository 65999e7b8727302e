"""Assignment of checkpoints and replacement of dead workers: real workers in this process, with a fake Ray."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.trace import ray_cluster
from ontogeny.jobs.trace.execution import TraceExecution, untrained_unit
from ontogeny.jobs.trace.plan import plan_trace
from ontogeny.jobs.trace.ray_cluster import RayCluster
from ontogeny.jobs.trace.ray_worker import RayWorker
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Checkpoint, Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.models.loading import ModelOptions
from ontogeny.storage.run import Run
from tests.helpers.planted_lineages import rows, save_run, write
from tests.helpers.trace_runs import same, units

QUICK = TraceSettings(sites="resid", fits=("mass_mean",), resamples=100, permutations=100)


class Died(Exception):
    """What Ray says when a worker is gone."""


class Ray:
    """Runs what is asked at once; `deaths` counts down the visits of a checkpoint after which the worker is gone."""

    exceptions = SimpleNamespace(
        RayError=Died, RayTaskError=type("Wrong", (Died,), {}), OutOfMemoryError=type("Memory", (Died,), {})
    )

    def __init__(self, deaths: dict[str, int], *, late: str = "", stillborn: int = 0) -> None:
        self.deaths, self.late, self.stillborn = Counter(deaths), late, stillborn
        self.visits: list[tuple[str, str, tuple[str, ...]]] = []
        self.words = "the worker has died"

    def put(self, value: Any) -> Any:
        return value

    def kill(self, actor: Any, *, no_restart: bool) -> None:
        actor.alive = False

    def wait(self, answers: list, *, num_returns: int = 1, timeout: float) -> tuple[list, list]:
        # The one whose worker is slow comes last.
        order = sorted(answers, key=lambda answer: answer.slow)
        return order[:num_returns], order[num_returns:]

    def get(self, answer: Any) -> Any:
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]


class Answer(SimpleNamespace):
    """Hashable, as Ray's references are."""

    __hash__ = object.__hash__


class Actor:
    """One worker behind Ray's manners."""

    def __init__(self, ray: Ray, kind: type, given: tuple) -> None:
        self.ray, self.name, self.alive = ray, given[2], True
        self.inner = kind(*given)

    def __getattr__(self, method: str) -> Any:
        def remote(*given: Any) -> Any:
            slow = method == "visit" and self.name.startswith(self.ray.late or "none")
            return Answer(value=self._do(method, given), slow=slow)

        return SimpleNamespace(remote=remote, options=lambda **_: SimpleNamespace(remote=remote))

    def _do(self, method: str, given: tuple) -> Any:
        if method == "why_unusable" and self.ray.stillborn:
            self.ray.stillborn -= 1
            return Died("the worker has died\nand more of it")
        found = getattr(self.inner, method)(*given)
        if method == "visit":
            self.ray.visits.append((self.name, given[0].name, tuple(given[1])))
            if self.ray.deaths[given[0].name] > 0:
                self.ray.deaths[given[0].name] -= 1
                job = self.inner.plan
                for unit in (job.units[given[0], "two"], untrained_unit(job, job.concepts[1])):
                    self.inner.share.drop(unit)
                return Died(self.ray.words)
        return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_run(home / "run", {1: 0.0, 2: 4.0, 3: 8.0, 5: 9.0})
    write(home / "one.csv", rows(characters=20))
    write(home / "two.csv", rows(characters=28)[8:])
    return home


@pytest.fixture(scope="module")
def once(home: Path) -> Run:
    return traced(home, home / "once")


def traced(home: Path, out: Path, **how: Any) -> Run:
    concepts = [Concept.from_file(home / name) for name in ("one.csv", "two.csv")]
    return trace(Lineage.open(home / "run"), concepts, out, QUICK, **how)


@pytest.fixture
def on(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Traces on a given Ray."""

    def go(ray: Ray, workers: int = 2) -> Run:
        @contextmanager
        def connected(_: RayCluster) -> Iterator[Ray]:
            yield ray

        def placed(_: Ray, kind: type, __: Any) -> tuple[Any, None]:
            return SimpleNamespace(remote=lambda *given: Actor(ray, kind, given)), None

        monkeypatch.setattr(ray_cluster, "connect_ray", connected)
        monkeypatch.setattr(ray_cluster, "reserve_worker", placed)
        monkeypatch.setattr(ray_cluster, "release_worker", lambda *_: None)
        return traced(home, tmp_path / "run", cluster=RayCluster(workers=workers))

    return go


def test_two_dead_workers_lose_nothing(on, once):
    ray = Ray({"checkpoint-3": 2})
    run = on(ray)
    same(run, once)
    assert run.about["failures"] == []
    # What it had finished is not asked for again.
    assert [wanted for _, name, wanted in ray.visits if name == "checkpoint-3"] == [("one", "two"), ("two",), ("two",)]
    assert sorted(set(units(run))) == sorted(units(once))


def test_three_dead_workers_make_a_failure(on, once):
    run = on(Ray({"checkpoint-3": 3}))
    [failure] = run.about["failures"]
    assert failure["checkpoint"] == "checkpoint-3"
    assert "died 3 times (it was killed, or ended by itself)" in failure["reason"]
    assert run.about["finished"]
    done = run.records("metric = 'auroc'").query("step == step").step.unique()
    assert sorted(done) == [1, 2, 3, 5]  # one of the two concepts of step 3 was finished
    same(on(Ray({})), once)  # the same command again


def test_idle_worker_takes_over_prefetched_checkpoint(on, once):
    ray = Ray({}, late="ray-0-")
    same(on(ray), once)
    assert Counter(name for name, _, _ in ray.visits) == {"ray-0-of-2": 1, "ray-1-of-2": 3}


def test_floor_is_measured_again_if_its_worker_died(on, once, monkeypatch):
    lost = Ray({"checkpoint-1": 1})
    same(on(lost, workers=1), once)


def test_failure_names_memory(on):
    ray = Ray({"checkpoint-3": 3})
    ray.words = "Task was killed due to the node running low on memory.\nand more of it"
    [failure] = on(ray).about["failures"]
    assert "died 3 times (the machine ran out of memory)" in failure["reason"]


def test_unused_prefetched_checkpoints_are_released(home, tmp_path):
    asked: list[str] = []
    left: list[str] = []

    class Recorder:
        def submit(self, checkpoint: Checkpoint) -> Any:
            asked.append(checkpoint.name)
            return SimpleNamespace(result=lambda: Path(checkpoint.source), name=checkpoint.name)

        def release(self, outcome: Any) -> None:
            left.append(outcome.name)

        def close(self, *, wait: bool) -> None:
            left.append("all")

    lineage = Lineage.open(home / "run")
    first, second, third, fourth = lineage.checkpoints
    job = plan_trace(lineage, [Concept.from_file(home / "one.csv")], QUICK)
    Run(tmp_path / "run").describe({})
    execution = TraceExecution(ModelOptions(), delete_behind=True)
    worker = RayWorker(job, tmp_path / "run", "ray-0-of-2", execution, 1, tmp_path)
    worker.fetcher, worker.executor = Recorder(), SimpleNamespace(visit=lambda *_: [], floor=[])  # type: ignore[assignment]
    worker.visit(first, ["one"], [], second)
    assert (asked, left) == (["checkpoint-1", "checkpoint-2"], ["checkpoint-1"])
    worker.visit(third, ["one"], [], fourth)  # another worker was free for the second
    assert asked[2:] == ["checkpoint-3", "checkpoint-5"]
    assert left[1:] == ["checkpoint-2", "checkpoint-3"]
    worker.visit(fourth, ["one"], [], None)
    assert len(asked) == 4
    worker.visit(first, ["one"], [], second)
    worker.delete_prefetched()
    assert left[3:] == ["checkpoint-5", "checkpoint-1", "checkpoint-2", "all"]


def test_workers_that_never_start_raise_an_error(on, tmp_path):
    with pytest.raises(BadInput, match="no worker stays alive on this cluster") as told:
        on(Ray({}, stillborn=9))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


def test_worker_that_starts_at_third_attempt_is_used(on, once):
    same(on(Ray({}, stillborn=2), workers=1), once)
