"""Shards of a run, in any order, concurrent or killed: the rows equal those of one process, and nothing is computed twice."""

import os
from pathlib import Path

import pytest

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.shards import Shard
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.storage.lock import run_lock
from ontogeny.storage.run import Run
from tests.helpers.subprocesses import fork
from tests.helpers.trace_runs import QUICK, same, save_five


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_five(home)
    return home


@pytest.fixture(scope="module")
def once(home: Path) -> Run:
    return trace(Lineage.open(home / "five"), both(home), home / "once", QUICK)


def both(home: Path) -> list[Concept]:
    return [Concept.from_file(home / name) for name in ("one.csv", "two.csv")]


def share(home: Path, out: Path, which: str) -> Run:
    return trace(Lineage.open(home / "five"), both(home), out, QUICK, shard=Shard.parse(which))


def visited(run: Run) -> list[str]:
    return sorted(entry["checkpoint"] for entry in run.ledger() if "forwards" in entry)


def test_shards_in_another_order_equal_one_process(home, once, tmp_path):
    for i, which in enumerate(("2/3", "0/3", "1/3")):
        run = share(home, tmp_path / "run", which)
        assert run.about["finished"] == (i == 2)
    same(run, once)
    assert visited(run) == visited(once)
    assert not (tmp_path / "run" / "shards").exists()
    assert run.about["parity"]["holds"]
    again = len(run.ledger())
    assert len(share(home, tmp_path / "run", "1/3").ledger()) == again  # nothing is computed twice
    same(trace(Lineage.open(home / "five"), both(home), tmp_path / "run", QUICK), once)


def test_concurrent_shards_equal_one_process(home, once, tmp_path):
    code = "import sys; from pathlib import Path; from tests.flows.test_shards import share; "
    code += "share(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [fork(code, home, tmp_path / "run", f"{i}/2", env=env) for i in range(2)]
    for worker in workers:
        assert worker.ended(120) == 0, worker.said("err")
    run = Run(tmp_path / "run")
    same(run, once)
    assert run.about["finished"]
    assert visited(run) == visited(once)


def test_killed_shard_is_finished_by_next_process(home, once, tmp_path, monkeypatch):
    written, replace = 0, os.replace

    def dying(*names):
        nonlocal written
        written += 1
        if written > 12:
            raise KeyboardInterrupt
        return replace(*names)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            share(home, tmp_path / "run", "0/1")
    done = set((tmp_path / "run" / "shards" / "0-of-1" / "records").glob("*.parquet"))
    assert done
    same(trace(Lineage.open(home / "five"), both(home), tmp_path / "run", QUICK), once)


def test_rejects_same_shard_twice_at_once(home, tmp_path):
    folder = tmp_path / "run" / "shards" / "0-of-2"
    with run_lock(folder), pytest.raises(BadInput, match="another process is writing"):
        share(home, tmp_path / "run", "0/2")


@pytest.mark.parametrize("text", ["", "3", "3/3", "-1/3", "a/b", "1/0"])
def test_rejects_invalid_shard(text):
    with pytest.raises(BadInput, match="`shard` must be i/n"):
        Shard.parse(text)
