"""What a command prints cannot move the cursor of a terminal, and its CSV holds no formula."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ontogeny.cli._streams import VisibleStream, raw, visible_streams
from ontogeny.errors import BadInput
from ontogeny.records import Record
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say

TITLE = "\x1b]0;owned\x07\x1b[2J\x9b1A\rname\u202e"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b1A\rname\u202e"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = Run(tmp_path / "run")
    run.describe({"lineage": {"name": TITLE}, "concepts": [], "settings": {}})
    notes = (TITLE, "=1+1", "+1", "-1", "@x", "plain", None)
    run.keep("a", [Record("m", 0.5 if i else -0.5, n=1, note=note) for i, note in enumerate(notes)])
    return run.folder


def test_colours_pass_on_a_terminal_only() -> None:
    file = io.StringIO()
    VisibleStream(file).write("\x1b[31mred\x1b[0m\x1b[2K\n")
    assert file.getvalue() == "\\x1b[31mred\\x1b[0m\\x1b[2K\n"
    file = io.StringIO()
    file.isatty = lambda: True
    VisibleStream(file).write("\x1b[31mred\x1b[0m\x1b[2K\n")
    assert file.getvalue() == "\x1b[31mred\x1b[0m\\x1b[2K\n"


@pytest.mark.parametrize("form", ["table", "markdown", "json"])
def test_tables_show_control_characters(form: str, run: Path, say: Say) -> None:
    code, out, err = say("query", run, "select note from records", "-f", form)
    assert code == 0
    assert not set("\x1b\x07\x9b\r\u202e") & set(out + err)
    assert "owned" in out


def test_errors_show_control_characters(run: Path, say: Say) -> None:
    for words in (("show", run, TITLE), ("query", run, f"select '{TITLE}' from nowhere"), ("report", f"{run}{TITLE}")):
        code, out, err = say(*words)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert not set("\x1b\x07\x9b\u202e") & set(err)


def test_terminal_gets_no_foreign_escape(run: Path) -> None:
    """In a real terminal, where the library prints styles."""
    main, worker = pty.openpty()
    code = "from ontogeny.cli import main; main()"
    words = [sys.executable, "-c", code, "query", str(run), "select note from records"]
    with subprocess.Popen(words, stdout=worker, stderr=worker, env={**os.environ, "COLUMNS": "200"}) as process:
        os.close(worker)
        out = b""
        while True:
            try:
                out += os.read(main, 65536)
            except OSError:  # the other end is closed
                break
    os.close(main)
    assert process.returncode == 0
    assert SHOWN.encode() in out
    assert b"\x1b]0;" not in out
    assert b"\x1b[2J" not in out


def test_csv_holds_no_formula(run: Path, say: Say) -> None:
    code, out, _ = say("query", run, "select note, value from records order by value, note", "-f", "csv")
    assert code == 0
    lines = out.splitlines()
    assert {"'=1+1,0.5", "'+1,0.5", "'-1,0.5", "'@x,0.5", "plain,0.5", ",0.5"} < set(lines)
    assert lines[-1].endswith("0.5")
    assert any(line.endswith(",-0.5") for line in lines)  # a number is no text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_stream_writes_out_what_its_encoding_lacks(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with a dash or a block, and a CSV, in a terminal without UTF-8."""
    raw_bytes = io.BytesIO()
    stream = io.TextIOWrapper(raw_bytes, encoding=encoding, errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    with visible_streams():
        print("é – ▁")
        raw(sys.stdout).write("…\udcc3\n")
    assert stream.errors == "strict"
    first = "\\xe9" if encoding == "ascii" else "\xe9"
    assert raw_bytes.getvalue() == f"{first} \\u2013 \\u2581\n\\u2026".encode(encoding) + b"\xc3\n"


def test_query_that_is_no_text_is_an_error_of_one_line(run: Path) -> None:
    with pytest.raises(BadInput, match="must be text in UTF-8"):
        Run.open(run).query("select '\udcc3'")
