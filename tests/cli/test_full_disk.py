"""A full, limited or closed output ends a command with one line, and the earlier file stays."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ontogeny.records import Record
from ontogeny.storage.run import Run
from tests.helpers import synthetic_records
from tests.helpers.command_line import Say


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = Run(tmp_path / "run")
    run.describe({"lineage": {"name": "x", "checkpoints": []}, "concepts": [], "settings": {}})
    run.keep("a", [Record("m", 0.5, n=1), *_score_rows()])
    return run.folder


def _score_rows() -> list[Record]:
    """Scores of one concept: a view of them has something to draw."""
    table = synthetic_records.table()
    return synthetic_records.as_records(table[(table["concept"] == "truth") & (table["metric"] == "auroc")])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("words", [("report", "{}"), ("show", "{}", "emergence"), ("show", "{}", "emergence", "-o")])
def test_limited_file_is_one_line(words: tuple[str, ...], run: Path, say: Say) -> None:
    out = {"report": run / "report.html", "show": run / "emergence.png"}[words[0]]
    if words[-1] == "-o":
        out = run / "chart.html"
        words = (*words, str(out))
    out.write_text("earlier")
    with largest_file(100):
        code, _, err = say(*(word.format(run) for word in words))
    assert (code, len(err.splitlines())) == (2, 1), err
    assert f"cannot write {out}: the file is larger than this process may write" in err
    assert out.read_text() == "earlier"
    assert not [path for path in run.iterdir() if path.suffix == ".tmp"]


def started(redirection: str, *words: object) -> tuple[int, list[str]]:
    code = f'"{sys.executable}" -c "from ontogeny.cli import main; main()" "$@" {redirection}'
    done = subprocess.run(
        ["sh", "-c", code, "sh", *map(str, words)], stderr=subprocess.PIPE, text=True, env=dict(os.environ), timeout=100
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("form", ["csv", "markdown"])
def test_full_output_is_one_line(form: str, run: Path) -> None:
    code, lines = started("> /dev/full", "query", run, "select * from records", "-f", form)
    assert (code, len(lines)) == (2, 1)
    assert "the output cannot be written (No space left on device)" in lines[0]


def test_closed_output_is_no_fault(run: Path) -> None:
    assert started(">&-", "query", run, "select * from records", "-f", "csv") == (0, [])
    assert started("2>&- >&-", "report", run) == (0, [])
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert started(">&-", "query", run, "select x from records")[0] == 2
