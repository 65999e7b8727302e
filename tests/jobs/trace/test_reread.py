"""Checkpoints of a run are read from wherever the command runs."""

from pathlib import Path

import pytest

from ontogeny.jobs.trace.reread import checkpoint_in_run
from ontogeny.storage.run import Run


def test_relative_path_is_that_of_a_folder_above_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"name": "step-5", "stage": "base", "step": 5, "commit": None, "tokens": None, "train_seed": None}
    listed = [
        entry | {"source": source, "revision": revision} for source, revision in (("a/step-5", None), ("a/b", "main"))
    ]
    run = Run(tmp_path / "runs" / "mine")
    run.describe({"lineage": {"checkpoints": listed[:1]}, "concepts": [], "settings": {}})
    for folder in ("a/step-5", "a/b", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert checkpoint_in_run(run).source == "a/step-5"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert checkpoint_in_run(Run(Path("../runs/mine"))).source == str(tmp_path / "a" / "step-5")
    run.describe({"lineage": {"checkpoints": listed[1:]}, "concepts": [], "settings": {}})
    assert checkpoint_in_run(run).source == "a/b"  # a repository of the Hub
