"""Interrupted jobs lose nothing and do nothing twice: a sample of `make faults`; and locks of nested folders."""

import functools
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ontogeny.errors import BadInput
from ontogeny.storage.lock import run_lock
from tests.faults.forks import Forks
from tests.faults.on_ray import struck_on_ray
from tests.faults.subjects import SUBJECTS, prepare, raise_it, record_it
from tests.faults.trials import Trial, attempt, struck, trials, whole

Uninterrupted = Callable[[str], tuple[dict[str, str], tuple[str, ...]]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as made:
        yield made


@pytest.fixture(scope="module")
def uninterrupted(forks: Forks, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """The files and the points of a job that ran to its end, once a subject."""
    return functools.cache(lambda subject: whole(forks, subject, home, tmp_path_factory.mktemp(subject)))


@pytest.mark.parametrize(
    ("subject", "sample"),
    [("trace", 2), ("transfer", 1), ("evaluate", 1), ("monitor", 1), ("compare", 1), ("raise", 3), ("record", 10)],
)
def test_job_interrupted_at_any_point_resumes_equal(subject, sample, uninterrupted, forks, home, tmp_path) -> None:
    expected, points = uninterrupted(subject)
    every = list(trials(subject, points))
    assert len(every) > 5 * len(points)
    chosen = random.Random(f"{subject}").sample(every, sample)
    # The first write decides whether the folder is known for a run, the last whether it is told as finished.
    chosen += [Trial(subject, 1, "before", "kill"), Trial(subject, len(points), "before", "kill")]
    tried = [attempt(forks, trial, home, tmp_path / f"{i}", expected) for i, trial in enumerate(chosen)]
    assert [outcome for outcome in tried if not outcome.well] == []


def test_job_struck_at_any_moment_resumes_equal(uninterrupted, forks, home, tmp_path) -> None:
    expected, _ = uninterrupted("trace")
    draw, sent = random.Random(5), (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
    places = ((draw.uniform(0.02, 0.8), tmp_path / f"{i}", one) for i, one in enumerate(sent))
    tried = [struck(forks, "trace", moment, home, place, expected, one) for moment, place, one in places]
    assert [outcome for outcome in tried if not outcome.well] == []


def test_transfer_killed_while_relating_gets_its_events(uninterrupted, forks, home, tmp_path) -> None:
    """The trace of a transfer is finished where its run.json says so, not where its last unit is written."""
    expected, points = uninterrupted("transfer")
    # The last line of the ledger of the trace is followed by its summaries.
    last_visit = [at for at, kind in enumerate(points, start=1) if kind == "line"][2]
    trial = Trial("transfer", last_visit + 12, "before", "kill")
    assert attempt(forks, trial, home, tmp_path / "killed", expected).well


def test_full_disk_in_a_comparison_is_no_failed_study(uninterrupted, forks, home, tmp_path) -> None:
    expected, points = uninterrupted("compare")
    # The checksum of the first study's part, before its part gets its name.
    trial = Trial("compare", points.index("checksum") + 1, "torn", "full")
    assert attempt(forks, trial, home, tmp_path / "full", expected).well


def test_killed_ray_driver_resumes_equal(uninterrupted, forks, home, tmp_path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'ontogeny[ray]'")
    expected, _ = uninterrupted("trace")
    outcome = struck_on_ray(forks, "driver", 0.8, home, tmp_path / "struck", expected)
    assert outcome.well, outcome


def test_faults_find_a_job_that_writes_in_place(forks, home, tmp_path) -> None:
    expected, points = whole(forks, "careless", home, tmp_path / "whole")
    assert points == ("sync", "sync", "sync")
    torn = attempt(forks, Trial("careless", 2, "torn", "kill"), home, tmp_path / "torn", expected)
    assert torn.faults == ("b differs",)
    assert torn.again == {"a", "b"}
    full = attempt(forks, Trial("careless", 1, "before", "full"), home, tmp_path / "full", expected)
    assert "ended with 1, not 2" in full.faults[0]


@pytest.mark.parametrize("job", [raise_it, record_it])
def test_rejects_second_process_on_a_training(job, home, tmp_path) -> None:
    with run_lock(tmp_path / "out"):
        before = sorted(path.name for path in (tmp_path / "out").iterdir())
        with pytest.raises(BadInput, match="another process is writing into"):
            job(home, tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    assert SUBJECTS["raise"].finished(tmp_path / "out") == set()


def test_lock_removes_only_its_own_partial_files(tmp_path) -> None:
    ours, theirs = tmp_path / "records" / ".a.parquet.12-34.tmp", tmp_path / ".notes.tmp"
    ours.parent.mkdir()
    for path in (ours, theirs):
        path.write_text("half")
    with run_lock(tmp_path):
        assert not ours.exists()
        ours.write_text("being written")
        with pytest.raises(BadInput), run_lock(tmp_path):
            pass
        assert ours.exists()
    assert theirs.exists()


def test_lock_leaves_nested_runs_alone(tmp_path) -> None:
    inside = tmp_path / "trace"
    with run_lock(inside):
        written = inside / "records" / ".a.parquet.12-34.tmp"
        written.parent.mkdir()
        written.write_text("being written")
        with run_lock(tmp_path):
            assert written.exists()
    with run_lock(inside):
        assert not written.exists()
