"""Tasks in processes of their own: the rows of one process, failures and killed processes, interruption."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ontogeny.errors import BadInput
from ontogeny.jobs import processes
from ontogeny.jobs.processes import Task, TaskResult, check_processes, run_tasks
from ontogeny.jobs.progress import TraceProgress, ignore_progress
from ontogeny.jobs.study.replicate import run_replication
from ontogeny.jobs.study.study import StudyPlan, plan_study, run_study
from ontogeny.records import Record
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "usable_cpus", lambda: 2)


def swing_by(seeds: int) -> StudyPlan:
    return plan_study("swing_by", "smoke", seeds=seeds, changes={"steps": 30, "theory_steps": 200, "theory_seeds": 2})


def with_run(plan: StudyPlan, run: Callable[..., Iterator[Record]], name: str = "swing_by") -> StudyPlan:
    return replace(plan, study=replace(plan.study, run=run, name=name))


def fail_at_seed_1(settings: Any, lab: Any) -> Iterator[Record]:
    yield lab.row("score", lab.seed, "all")
    if lab.seed == 1:
        raise ValueError("the loss is\nnot finite")


def wait_forever(settings: Any, lab: Any) -> Iterator[Record]:
    lab.folder.mkdir(parents=True)
    (lab.folder / str(os.getpid())).touch()
    while True:
        time.sleep(0.01)
    yield


def end_process(path: Path, attempts: int, on_activity: Callable[[str, int, int], None]) -> int:
    """Die by SIGKILL in so many attempts, then return the number of attempts."""
    with path.open("a") as file:
        file.write("x")
    if path.stat().st_size <= attempts:
        os.kill(os.getpid(), signal.SIGKILL)
    return path.stat().st_size


def results(tasks: list[Task]) -> dict[str, TaskResult]:
    found: dict[str, TaskResult] = {}
    run_tasks(
        tasks, jobs=2, on_result=lambda result: found.update({result.task.name: result}), on_progress=ignore_progress
    )
    return found


def test_two_processes_have_the_rows_of_one(tmp_path: Path) -> None:
    lines: list[TraceProgress] = []
    one = run_study(swing_by(3), tmp_path / "one", threads=1)
    run_study(swing_by(1), tmp_path / "two")
    two = run_study(swing_by(3), tmp_path / "two", jobs=2, on_progress=lines.append)
    for column in one.records().columns.drop(["coords"]):
        assert one.records()[column].equals(two.records()[column]), column
    assert one.records()["coords"].tolist() == two.records()["coords"].tolist()
    assert sorted(entry["seed"] for entry in two.ledger()) == [0, 1, 2]
    assert {line.checkpoints_total for line in lines} == {3}
    assert lines[0].checkpoints_done == 1
    assert two.about["finished"]
    assert not (two.folder / "work").exists()


def test_failing_seed_is_listed_and_others_go_on(tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = with_run(swing_by(3), fail_at_seed_1)
    run = run_study(plan, tmp_path / "run", jobs=2)
    assert sorted(run.records()["train_seed"]) == [0, 2]
    assert not run.about["finished"]
    (failure,) = run.failures
    assert (failure.checkpoint, failure.stage) == ("seed 1", "swing_by")
    assert failure.reason.startswith("ValueError: the loss is not finite (test_processes.py, line")
    with pytest.raises(BadInput, match="the loss is not finite"):
        run_study(replace(plan, seeds=(1,)), tmp_path / "none", jobs=2)
    assert not (tmp_path / "none").exists()
    monkeypatch.setattr("ontogeny.jobs.study.study.plan_study", lambda *_, **__: plan)
    said = say("study", "run", "swing_by", "--preset", "smoke", "--out", tmp_path / "run", "--jobs", 2, "--quiet")
    assert said.code == 1
    assert "swing_by, seed 1 failed: ValueError" in said.err


def test_studies_share_the_processes(tmp_path: Path) -> None:
    plans = [with_run(swing_by(2), fail_at_seed_1, name) for name in ("first", "second")]
    runs = run_replication(plans, tmp_path, jobs=2)
    assert [run.folder.name for run in runs] == ["first", "second"]
    assert [run.records()["train_seed"].tolist() for run in runs] == [[0], [0]]
    assert [failure.stage for run in runs for failure in run.failures] == ["first", "second"]


def test_interruption_ends_all_processes(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(_: TraceProgress) -> None:
        pids[:] = [int(path.name) for path in tmp_path.rglob("work/*/*")]
        if len(pids) == 2:
            for pid in pids:
                os.kill(pid, signal.SIGINT)  # Ctrl-C reaches every process of the terminal
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            run_study(with_run(swing_by(2), wait_forever), tmp_path / "run", jobs=2, on_progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not Run(tmp_path / "run").exists()


def test_task_of_a_killed_process_runs_once_more(tmp_path: Path) -> None:
    found = results([Task(str(n), end_process, (tmp_path / str(n), n)) for n in (0, 1, 2)])
    assert found["0"].value == 1
    assert found["1"].value == 2
    assert "ended by signal 9" in (found["2"].failure or "")
    assert (tmp_path / "2").stat().st_size == 2


@pytest.mark.parametrize(
    ("jobs", "threads", "words"), [(0, None, "at least 1"), (2, 0, "`threads`"), (3, 1, "2 CPUs"), (2, 2, "2 threads")]
)
def test_rejects_more_processes_than_cpus(jobs: int, threads: int | None, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        check_processes(jobs, threads)
