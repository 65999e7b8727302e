"""Every script in examples/ runs on a small training run, and prints its result."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.helpers.docs_pages import ROOT
from tests.helpers.planted_lineages import save_run

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
SHOWS = {
    "compare_stages": "entropy",
    "evaluate_vector": "not evaluated: nothing",
    "export_table": "metrics",
    "monitor_classes": "resid.2",
    "own_concept": "capitals_table 24 examples in 12 groups",
    "probe_activations": "best site: resid.",
    "read_tokens": "'T'",
    "steer_generation": "random:",
    "trace_checkpoints": "Direction(",
    "transfer_probe": "source_step",
}
"""Something that each prints."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("examples")
    save_run(home / "pretrain", {1: 0.0, 8: 4.0}, context=128)
    save_run(home / "sft", {5: 8.0}, context=128)
    return home


def test_there_are_ten_examples_each_with_its_command() -> None:
    assert {path.stem for path in SCRIPTS} == set(SHOWS)
    assert len(SCRIPTS) == 10
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        assert f"python examples/{path.name}" in text
        assert len(text.splitlines()) < 40


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_example_runs(
    path: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [str(home / "pretrain"), str(home / "sft")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), *(sources if path.stem == "compare_stages" else sources[:1])])
    runpy.run_path(str(path), run_name="__main__")
    assert SHOWS[path.stem] in capsys.readouterr().out
