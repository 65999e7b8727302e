"""`ontogeny dashboard`: what it refuses before it starts."""

import socket
from pathlib import Path

import pytest

from tests.helpers.command_line import Say


def test_errors_are_one_sentence(say: Say, tmp_path: Path) -> None:
    said = say("dashboard", tmp_path)
    assert said.code == 2
    assert "is not a run directory" in said.err


def test_a_port_in_use_is_an_error(say: Say, tmp_path: Path) -> None:
    pytest.importorskip("nicegui", reason="needs the extra dashboard")
    from ontogeny.storage.run import Run

    Run(tmp_path / "run").describe({"lineage": {"name": "x"}, "concepts": []})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = say("dashboard", tmp_path / "run", "--port", taken.getsockname()[1], "--no-browser")
    assert said.code == 2
    assert "--port must be free" in said.err


def test_texts_need_an_export(say: Say, tmp_path: Path) -> None:
    from ontogeny.storage.run import Run

    Run(tmp_path / "run").describe({"lineage": {"name": "x"}, "concepts": []})
    said = say("dashboard", tmp_path / "run", "--text", "hello")
    assert said.code == 2
    assert "--text" in said.err
    assert "--export" in said.err
