"""A finished trace: the same command is answered from its stamp; whatever changes takes the whole way."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ontogeny.cli import app
from ontogeny.jobs.trace import finished, trace
from ontogeny.lineage import Lineage, Stage
from tests.helpers.trace_runs import save_five

OPTIONS = ["--sites", "resid", "--probes", "mass_mean", "--steps", "1,2", "--no-untrained"]


class WholeWay(Exception):
    """The job was called."""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_five(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finished, "CLOCK_TICK_NS", -1)  # the files were written a moment ago
        done = CliRunner().invoke(app, command(home))
    assert done.exit_code == 0, done.output
    return home


def command(home: Path, *more: str) -> list[str]:
    files = [str(home / "five"), "-c", str(home / "one.csv"), "-c", str(home / "two.csv")]
    return ["trace", *files, "--out", str(home / "run"), *OPTIONS, *more]


@pytest.fixture
def home(traced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(finished, "CLOCK_TICK_NS", -1)

    def stop(*_: object, **__: object) -> None:
        raise WholeWay

    monkeypatch.setattr(trace, "trace", stop)
    return traced


def test_same_command_is_answered_without_the_job(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (home / "run").rglob("*")}
    done = CliRunner().invoke(app, command(home))
    assert done.exit_code == 0, done.output
    assert "nothing is left to do" in done.output
    assert "AUROC" in done.output
    assert {path: path.stat().st_mtime_ns for path in (home / "run").rglob("*")} == before


@pytest.mark.parametrize("more", [["--seed", "1"], ["--position", "mean"], ["--limit", "20"], ["--causal"]])
def test_other_options_take_the_whole_way(home: Path, more: list[str]) -> None:
    assert isinstance(CliRunner().invoke(app, command(home, *more)).exception, WholeWay)


def first(folder: Path, pattern: str) -> Path:
    return min(folder.rglob(pattern))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "pattern", "change"),
    [
        ("one.csv", "", lambda path: path.write_text(path.read_text() + "\n")),
        ("five", "*.safetensors", _flip),
        ("five", "config.json", lambda path: os.utime(path)),
        ("run", "at-*.parquet", _flip),
        ("run", "*.safetensors", Path.unlink),
        ("run", "run.json", _cut),
        ("run", "finished.json", Path.unlink),
    ],
    ids=["text", "weight", "config", "part", "lost part", "run.json", "stamp"],
)
def test_changed_file_takes_the_whole_way(
    home: Path, tmp_path: Path, name: str, pattern: str, change: Callable[[Path], None]
) -> None:
    path = first(home / name, pattern) if pattern else home / name
    kept = tmp_path / "kept"
    shutil.copy2(path, kept)
    try:
        change(path)
        assert isinstance(CliRunner().invoke(app, command(home)).exception, WholeWay)
    finally:
        shutil.copy2(kept, path)


def test_recent_files_and_checkpoints_of_the_hub_have_no_stamp(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lineage = Lineage.open(home / "five")
    assert finished.request_digest(lineage, [str(home / "one.csv")], {}) is not None
    assert finished.request_digest(lineage, [str(home / "lost.csv")], {}) is None
    on_hub = [Stage(s.name, tuple(replace(c, revision="main") for c in s.checkpoints)) for s in lineage.stages]
    assert finished.request_digest(replace(lineage, stages=tuple(on_hub)), [], {}) is None
    monkeypatch.setattr(finished, "CLOCK_TICK_NS", 10**18)
    assert finished.request_digest(lineage, [str(home / "one.csv")], {}) is None
