"""A trace finds a planted concept at the step at which it was planted, and no emergence in scrambled checkpoints."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.shards import Shard
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.run import Run
from tests.helpers.planted_lineages import RISE
from tests.helpers.tiny_models import byte_tokenizer


@pytest.fixture(scope="module")
def rise(home: Path) -> Run:
    """The planted concept over the whole run, with answers."""
    concepts = [Concept.from_file(home / "planted.csv")]
    return trace(
        Lineage.open(home / "rise"),
        concepts,
        home / "out" / "rise",
        TraceSettings(sites="resid", resamples=200, permutations=200),
    )


def event(run: Run, metric: str, form: str = "half", method: str = "logistic") -> pd.Series:
    found = run.records(f"metric = '{metric}' and method = '{method}' and coords['form'] = '{form}'")
    assert len(found) == 1
    return found.iloc[0]


def test_planted_concept_emerges_at_its_step(rise: Run) -> None:
    for method in ("logistic", "mass_mean"):
        for form in ("half", "threshold"):
            found = event(rise, "emergence_step", form, method)
            assert 8 < found.value <= 16
            assert found.low <= found.value <= found.high
            assert (found.low, found.high) == (8, 16)
    curve = rise.records("metric = 'auroc' and method = 'logistic' and control is null").groupby("step").value.max()
    assert list(curve.index) == list(RISE)
    assert curve[1] < 0.7
    assert curve[128] > 0.95
    assert math.isnan(event(rise, "loss_step").value)


def test_planted_concept_is_readable_before_it_is_used(rise: Run) -> None:
    used = event(rise, "used_step", method="likelihood")
    assert 32 <= used.low < used.value < used.high <= 64
    difference = event(rise, "readable_minus_used")
    assert difference.low < difference.value < difference.high < 0
    by_step = rise.records("metric = 'answer_accuracy'").set_index("step").value
    assert by_step[128] == 1.0
    assert by_step[16] < 0.65


def test_floors_are_measured_beside_scores(rise: Run) -> None:
    controls = set(rise.records("metric in ('auroc', 'accuracy')").control.dropna())
    assert {"random_direction", "untrained", "leace", "control_task", "surface_tfidf", "surface_casing"} <= controls
    floor = rise.records("control = 'untrained' and metric = 'auroc' and method = 'logistic'")
    assert floor.step.isna().all()
    assert floor.value.max() < 0.75
    erased = rise.records("control = 'leace' and step = 128 and metric = 'auroc'")
    assert erased.value.max() < 0.7
    best = rise.records("metric = 'p_familywise' and method = 'logistic' and step = 128")
    assert best.value.min() < 0.05
    assert rise.records("metric = 'p_familywise' and step = 1").value.min() > 0.05


def test_rows_have_all_coordinates(rise: Run) -> None:
    found = rise.records()
    assert set(found.lineage) == {"rise"}
    assert found.unit.notna().all()
    assert (found.n[found.value.isna()] == 0).all()
    assert found.note[found.value.isna()].notna().all()
    assert (found.n[found.value.notna()] > 0).all()
    measured = found[found.step.notna()]
    assert set(measured.stage) == {"pretrain"}
    assert set(measured.revision) == {f"checkpoint-{step}" for step in RISE}
    assert not found.duplicated(["metric", "method", "control", "step", "site", "split", "value", "unit"]).all()


def test_scrambled_checkpoints_show_no_emergence(home: Path, tmp_path: Path, rise: Run) -> None:
    # The same weights in another order: the last one still shows the concept, but nothing forms.
    order = [16, 1, 64, 2, 4, 32, 8, 128]
    for step, weights in zip(RISE, order, strict=True):
        shutil.copytree(home / "rise" / f"checkpoint-{weights}", tmp_path / "run" / f"checkpoint-{step}")
    byte_tokenizer().save_pretrained(tmp_path / "run")
    concepts = [Concept.from_file(home / "planted.csv")]
    settings = TraceSettings(sites="resid", resamples=200, permutations=200)
    run = trace(Lineage.open(tmp_path / "run"), concepts, tmp_path / "out", settings)
    for method in ("logistic", "mass_mean"):
        for form in ("half", "threshold"):
            found = event(run, "emergence_step", form, method)
            assert math.isnan(found.value)
            assert found.n == 0
            assert "could be chance" in found.note
            assert not math.isnan(event(rise, "emergence_step", form, method).value)  # the control
    last = run.records("metric = 'auroc' and method = 'logistic' and control is null and step = 128")
    assert last.value.max() > 0.95


def test_causal_part_adds_units_to_a_finished_run_and_changes_none(home: Path, tmp_path: Path, rise: Run) -> None:
    shutil.copytree(rise.folder, tmp_path / "run")
    settings = TraceSettings(sites="resid", resamples=200, permutations=200, causal=True)
    concepts = [Concept.from_file(home / "planted.csv")]
    before = {path.name for path in (tmp_path / "run" / "directions").iterdir()}
    run = trace(Lineage.open(home / "rise"), concepts, tmp_path / "run", settings)
    assert {path.name for path in (tmp_path / "run" / "directions").iterdir()} == before
    rows = run.records("metric like 'ablation%'")
    assert len(rows) == 4
    assert set(rows.step) == {128}
    effect = rows[rows.metric.eq("ablation_effect") & rows.control.isna()].iloc[0]
    null = rows[rows.control.eq("random_direction")].iloc[0]
    assert effect.low < effect.value < effect.high
    assert null.low < null.value < null.high
    assert rows[rows.metric.eq("ablation_p_corrected")].value.item() == rows[rows.metric.eq("ablation_p")].value.item()
    # A second call, and one without the option, compute nothing and keep the rows.
    parts = {path.name: path.stat().st_mtime_ns for path in (run.folder / "records").glob("caus*")}
    for causal in (True, False):
        trace(Lineage.open(home / "rise"), concepts, run.folder, replace(settings, causal=causal))
        assert {path.name: path.stat().st_mtime_ns for path in (run.folder / "records").glob("caus*")} == parts
    with pytest.raises(BadInput, match="`causal` must not be set for a shard"):
        trace(Lineage.open(home / "rise"), concepts, tmp_path / "shards", settings, shard=Shard.parse("0/2"))
