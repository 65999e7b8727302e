"""Two processes on one folder, and a full disk: a one-line error; the first process is not disturbed, and files stay as they were."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.monitor.cross_concept import monitor_cross_concept
from ontogeny.jobs.monitor.frozen_probes import monitor_frozen_probes
from ontogeny.jobs.monitor.monitor import write_monitor_rows
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import rows, save_run, write
from tests.helpers.subprocesses import Forked, fork, python

HELD = """
import sys, time
from pathlib import Path
import {module} as module

real, go, inside = module.{name}, Path({go!r}), Path({inside!r})

def held(*args, **named):
    inside.touch()
    while not go.exists():
        time.sleep(0.02)
    return real(*args, **named)

module.{name} = held
from ontogeny.cli import main
main()
"""
"""A command that waits in the middle of its work until it is told to go on."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
PLAIN = "from ontogeny.cli import main; main()"
QUICK = TraceSettings(sites="resid", fits=("logistic", "mass_mean"), resamples=100, permutations=100, untrained=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_run(home / "steps", {1: 0.0, 2: 8.0})
    both = [Concept.from_file(write(home / f"{name}.csv", rows(characters=40))) for name in ("planted", "other")]
    trace(Lineage.open(home / "steps"), both, home / "run", QUICK)
    return home


def until(happened: Callable[[], bool], process: Forked) -> None:
    limit = time.monotonic() + 120
    while not happened():
        assert process.ended() is None, process.said("err")
        assert time.monotonic() < limit
        time.sleep(0.02)


def state(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("job", ["trace", "raise"])
def test_second_process_is_rejected_and_first_continues(job: str, home: Path, tmp_path: Path) -> None:
    out, go, inside = tmp_path / "out", tmp_path / "go", tmp_path / "inside"
    argv: dict[str, tuple[object, ...]] = {
        "trace": ("trace", home / "steps", "-c", home / "planted.csv", "-o", out, "--sites", "resid", "-q"),
        "raise": ("train", "--size", "demo", "--out", out),
    }
    place = {
        "trace": ("ontogeny.jobs.trace.executor", "capture_workload"),
        "raise": ("ontogeny.training.toy_models.in_world", "train"),
    }[job]
    code = HELD.format(module=place[0], name=place[1], go=str(go), inside=str(inside))
    first = fork(code, *argv[job], env=ENVIRONMENT)
    try:
        until(inside.exists, first)
        before = state(out)
        second = python(PLAIN, *argv[job], env=ENVIRONMENT)
        assert (second.returncode, second.stdout, second.stderr.count("\n")) == (2, "", 1), second.stderr
        assert "another process is writing into" in second.stderr
        assert state(out) == before
        if job == "raise":  # what it goes on with takes minutes: killed, it lets go of the folder all the same
            first.kill()
            with run_lock(out):
                assert not list(out.rglob(".*.tmp"))
            return
        go.touch()
        assert first.ended(180) == 0, first.said("err")
    finally:
        first.kill()
    run = Run.open(out)
    assert run.about["finished"]
    assert set(run.records("metric = 'auroc' and control is null").step.dropna()) == {1, 2}


@pytest.mark.parametrize("job", ["monitor", "frozen", "across"])
def test_monitor_rejects_locked_run(job: str, home: Path) -> None:
    run = Run.open(home / "run")
    both = [Concept.from_file(home / f"{name}.csv") for name in ("planted", "other")]
    jobs: dict[str, Callable[[], object]] = {
        "monitor": lambda: write_monitor_rows(run, (0.1,)),
        "frozen": lambda: monitor_frozen_probes(run, both, rates=(0.1,)),
        "across": lambda: monitor_cross_concept(run, both),
    }
    with run_lock(run.folder):
        before = state(run.folder)
        with pytest.raises(BadInput, match="another process is writing"):
            jobs[job]()
        assert state(run.folder) == before
    jobs[job]()  # the control: now it gets in
    assert state(run.folder) != before


@pytest.mark.usefixtures("one_view")
@pytest.mark.parametrize(
    "argv",
    [
        ("monitor", "run", "--fpr", "0.2"),
        ("monitor", "run", "-c", "planted.csv", "--fpr", "0.2"),
        ("monitor", "run", "--cross-concept", "planted.csv", "--cross-concept", "other.csv"),
        ("report", "run"),
        ("show", "run", "emergence", "-o", "run/emergence.json"),
        ("show", "run", "emergence", "-o", "run/emergence.svg"),
    ],
    ids=" ".join,
)
def test_full_disk_is_one_line_and_files_stay(
    argv: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    monkeypatch.chdir(home)
    assert say(*argv).code == 0  # the control: with room it is written
    before = state(home / "run")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, _, told = say(*argv)
    err = told.splitlines()
    assert code == 2
    assert "the disk is full. Free some space" in err[-1]
    assert sum(line.startswith("ontogeny: ") for line in err) == 1
    assert state(home / "run") == before
