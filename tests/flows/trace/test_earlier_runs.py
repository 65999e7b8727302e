"""A run of an earlier version, with one part a unit and without checksums and format, is opened, grown and reported."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ontogeny.data.concept import Concept
from ontogeny.jobs.resumable import WeightIdentity
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.checksums import CHECKSUM_FILE
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say
from tests.helpers.trace_runs import table, visits

FAST = TraceSettings(
    sites="resid", fits=("mass_mean",), resamples=100, permutations=100, untrained=False, protocol="single-split"
)


@pytest.fixture
def earlier(home: Path, tmp_path: Path, small: Concept, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The first and the last checkpoint, as an earlier version kept them."""
    with monkeypatch.context() as patch:
        patch.setattr(WeightIdentity, "whole", property(lambda identity: identity.fingerprint))
        for name in ("compact", "compact_checkpoint"):
            patch.setattr(Run, name, lambda *_, **__: None)
        run = trace(Lineage.open(home / "few").select("1,3"), [small], tmp_path / "run", FAST)
    about = {key: value for key, value in run.about.items() if key != "format"}
    about["settings"] = {k: v for k, v in about["settings"].items() if k not in ("folds", "causal")}
    about["settings"]["protocol"] = "default"
    for name in (CHECKSUM_FILE, "index.json", "run.json.bak"):
        (run.folder / name).unlink(missing_ok=True)
    run.about_path.write_text(json.dumps(about))
    assert len(list((run.folder / "directions").iterdir())) == 2
    assert not any(path.name.startswith("at-") for path in (run.folder / "records").iterdir())
    return run


def test_earlier_run_is_opened_and_reported(earlier: Run, say: Say) -> None:
    before = {path: path.read_bytes() for path in earlier.folder.rglob("*") if path.is_file()}
    run = Run.open(earlier.folder)
    assert set(run.records("metric = 'auroc' and control is null").step) == {1, 3}
    for unit in run.headers():
        assert run.scores(unit)
    assert run.direction("small").vector.isfinite().all()
    assert say("report", earlier.folder)[0] == 0
    (earlier.folder / "report.html").unlink()
    assert {path: path.read_bytes() for path in earlier.folder.rglob("*") if path.is_file()} == before


def test_earlier_run_is_grown(earlier: Run, home: Path, tmp_path: Path, small: Concept) -> None:
    names = set(earlier.headers())
    grown = trace(Lineage.open(home / "few"), [small], earlier.folder, FAST)
    assert visits(grown) == ["checkpoint-1", "checkpoint-3", "checkpoint-2"]
    assert names < set(grown.headers())
    fresh = trace(Lineage.open(home / "few"), [small], tmp_path / "fresh", FAST)
    pd.testing.assert_frame_equal(*(table(run).drop(columns="unit") for run in (grown, fresh)))
    assert grown.about["format"] == fresh.about["format"]
    assert {path.parent.name: path.name[:3] for path in (grown.folder / "directions").iterdir()} == {
        "directions": "at-"
    }
    assert len(visits(trace(Lineage.open(home / "few"), [small], grown.folder, FAST))) == 3


def test_cross_fitted_run_of_an_earlier_version_is_measured_again_without_doubled_rows(
    home: Path, tmp_path: Path, small: Concept, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(FAST, protocol="cross-fit")
    with monkeypatch.context() as patch:
        patch.setattr("ontogeny.measurements.settings._CROSS_FIT_VERSION", 0)
        old = trace(Lineage.open(home / "few"), [small], tmp_path / "run", settings)
    before = table(old)
    again = trace(Lineage.open(home / "few"), [small], tmp_path / "run", settings)
    assert not set(table(again).unit.dropna()) & set(before.unit.dropna())
    pd.testing.assert_frame_equal(*(rows.drop(columns="unit") for rows in (table(again), before)))
