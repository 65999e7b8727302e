"""Prefetching: in order, ahead of the caller, errors as values, bounded disk use (with a fake fetch)."""

import threading
import time
from pathlib import Path

import pytest

from ontogeny.errors import BadInput, CheckpointError
from ontogeny.lineage import Checkpoint, prefetch_checkpoints
from tests.lineage.test_weight_files import cut, model


def folders(tmp_path: Path, count: int) -> list[Checkpoint]:
    return [model(tmp_path / f"checkpoint-{i}", seed=i) for i in range(count)]


def test_yields_in_order_and_keeps_local_folders(tmp_path: Path) -> None:
    checkpoints = folders(tmp_path, 4)
    seen = list(prefetch_checkpoints(checkpoints, delete_behind=True))
    assert [checkpoint for checkpoint, _ in seen] == checkpoints
    assert all(folder == Path(checkpoint.source) and folder.is_dir() for checkpoint, folder in seen)
    assert list(prefetch_checkpoints([])) == []


def test_errors_are_yielded_and_others_continue(tmp_path: Path) -> None:
    checkpoints = folders(tmp_path, 3)
    cut(Path(checkpoints[1].source))
    outcomes = [outcome for _, outcome in prefetch_checkpoints(checkpoints)]
    assert isinstance(outcomes[1], CheckpointError)
    assert [isinstance(outcome, Path) for outcome in outcomes] == [True, False, True]


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_fetches_only_the_given_number_ahead(tmp_path: Path, ahead: int) -> None:
    checkpoints = [Checkpoint(str(tmp_path / str(i))) for i in range(6)]
    fetched: list[str] = []
    done = threading.Condition()

    def fetch(checkpoint: Checkpoint) -> Path:
        with done:
            fetched.append(checkpoint.source)
            done.notify()
        return Path(checkpoint.source)

    for place, _ in enumerate(prefetch_checkpoints(checkpoints, ahead=ahead, fetch=fetch)):
        wanted = min(place + 1 + ahead, len(checkpoints))
        with done:
            assert done.wait_for(lambda wanted=wanted: len(fetched) >= wanted, timeout=10)
        time.sleep(0.01)
        assert len(fetched) == wanted


def test_fetching_runs_while_the_caller_computes(tmp_path: Path) -> None:
    checkpoints = [Checkpoint(str(tmp_path / str(i))) for i in range(4)]

    def fetch(checkpoint: Checkpoint) -> Path:
        time.sleep(0.1)
        return Path(checkpoint.source)

    def duration(ahead: int) -> float:
        begin = time.perf_counter()
        for _ in prefetch_checkpoints(checkpoints, ahead=ahead, fetch=fetch):
            time.sleep(0.1)
        return time.perf_counter() - begin

    assert duration(ahead=1) < 0.8 * duration(ahead=0)


def test_unexpected_error_is_raised(tmp_path: Path) -> None:
    def fetch(checkpoint: Checkpoint) -> Path:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(prefetch_checkpoints([Checkpoint(str(tmp_path))] * 2, fetch=fetch))


def test_early_exit_cancels_pending_fetches(tmp_path: Path) -> None:
    fetched: list[str] = []

    def fetch(checkpoint: Checkpoint) -> Path:
        fetched.append(checkpoint.source)
        if not checkpoint.source.endswith("0"):
            time.sleep(0.5)  # longer than this thread needs to leave the loop, on a busy machine too
        if checkpoint.source.endswith("2"):
            raise BadInput("not reached")
        return Path(checkpoint.source)

    for _ in prefetch_checkpoints([Checkpoint(str(tmp_path / str(i))) for i in range(9)], ahead=4, fetch=fetch):
        break
    workers = [thread for thread in threading.enumerate() if thread.name == "fetch checkpoints"]
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()
    assert len(fetched) <= 3
