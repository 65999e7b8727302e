"""A resumed run computes nothing twice, equals one run when it grows, and rejects another lineage, settings or examples."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from tests.helpers.planted_lineages import planted, rows, write
from tests.helpers.trace_runs import QUICK, same, table, units, visits


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("a checkpoint was read")

    monkeypatch.setattr("ontogeny.jobs.trace.executor.capture_workload", refuse)
    monkeypatch.setattr("ontogeny.models.reusable.open_model", refuse)
    monkeypatch.setattr("ontogeny.jobs.trace.executor.untrained_model", refuse)


def test_second_start_computes_nothing(home: Path, tmp_path: Path, small: Concept, monkeypatch) -> None:
    run = trace(Lineage.open(home / "few"), [small], tmp_path / "out", QUICK)
    assert visits(run) == ["untrained", "checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert all(line["forwards"] == len(set(small.texts)) for line in run.ledger())
    ledger, before = (tmp_path / "out" / "ledger.jsonl").read_bytes(), table(run)
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "records").iterdir()}
    forbid(monkeypatch)
    again = trace(Lineage.open(home / "few"), [small], tmp_path / "out", QUICK)
    assert (tmp_path / "out" / "ledger.jsonl").read_bytes() == ledger
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "records").iterdir()} == written
    pd.testing.assert_frame_equal(table(again), before)
    assert again.about["finished"]
    with pytest.raises(AssertionError, match="a checkpoint was read"):  # the control
        trace(Lineage.open(home / "few"), [small], tmp_path / "new", QUICK)


def test_grown_run_equals_one_run(home: Path, tmp_path: Path, small: Concept, others: Concept) -> None:
    lineage = Lineage.open(home / "few")
    trace(lineage.select("1,3"), [small], tmp_path / "grown" / "out", QUICK)
    trace(lineage.select("1,3"), [small, others], tmp_path / "grown" / "out", QUICK)
    grown = trace(lineage, [small, others], tmp_path / "grown" / "out", QUICK)
    once = trace(lineage, [others, small], tmp_path / "once" / "out", QUICK)
    same(grown, once)
    assert sorted(units(grown)) == sorted(set(units(grown)))
    assert visits(grown) == [*["untrained", "checkpoint-1", "checkpoint-3"] * 2, "checkpoint-2"]
    shared = len(set(small.texts) & set(others.texts))
    apart = len(set(small.texts) | set(others.texts))
    assert shared > 20
    assert {line["forwards"] for line in once.ledger()} == {apart}  # a text of two concepts is run once
    assert {c["name"] for c in grown.about["concepts"]} == {"small", "others"}
    assert [c["step"] for c in grown.about["lineage"]["checkpoints"]] == [1, 2, 3]


def test_tracing_one_concept_keeps_the_others(home: Path, tmp_path: Path, small: Concept, others: Concept) -> None:
    lineage = Lineage.open(home / "few").select("1,3")
    trace(lineage, [small], tmp_path / "out", QUICK)
    run = trace(lineage, [others], tmp_path / "out", QUICK)
    assert {c["name"] for c in run.about["concepts"]} == {"small", "others"}
    assert set(run.records("metric = 'best_site'").concept) == {"small", "others"}


def test_step_0_replaces_random_initialisation(home: Path, tmp_path: Path, small: Concept) -> None:
    folder = Path(shutil.copytree(home / "few", tmp_path / "few"))
    trace(Lineage.open(folder), [small], tmp_path / "grown", QUICK)
    planted(0.0, fresh=True).save_pretrained(folder / "checkpoint-0")
    grown = trace(Lineage.open(folder), [small], tmp_path / "grown", QUICK)
    once = trace(Lineage.open(folder), [small], tmp_path / "once", QUICK)
    same(grown, once)
    of_start = set(once.records("step = 0 and metric = 'fisher'").unit)
    assert set(once.records("control = 'untrained'").unit) == of_start
    assert len(of_start) == 1
    assert "untrained" not in visits(once)


def test_rejects_other_examples_settings_and_lineages(home: Path, tmp_path: Path, small: Concept, monkeypatch) -> None:
    lineage = Lineage.open(home / "few").select("1")
    run = trace(lineage, [small], tmp_path / "out", QUICK)
    before, about = table(run), run.about
    write(tmp_path / "small.csv", rows(characters=37))
    forbid(monkeypatch)
    with pytest.raises(BadInput, match=r"holds other examples of the concept 'small': rename"):
        trace(lineage, [Concept.from_file(tmp_path / "small.csv")], tmp_path / "out", QUICK)
    for other, what in (
        (
            TraceSettings(sites="resid", resamples=100, permutations=100, seed=1),
            "`seed` must be 0, with which .* was traced, got 1",
        ),
        (
            TraceSettings(sites="resid,mlp", resamples=100, permutations=100),
            "`sites` must be resid, with which .* was traced, got resid,mlp",
        ),
    ):
        with pytest.raises(BadInput, match=what):
            trace(lineage, [small], tmp_path / "out", other)
    with pytest.raises(BadInput, match=r"must hold a run of rise, got .* with a run of few"):
        trace(Lineage.open(home / "rise"), [small], tmp_path / "out", QUICK)
    pd.testing.assert_frame_equal(table(run), before)
    assert run.about == about


def test_failed_session_leaves_run_unchanged(home: Path, tmp_path: Path, small: Concept) -> None:
    lineage = Lineage.open(home / "few").select("1,3")
    run = trace(lineage, [small], tmp_path / "out", QUICK)
    before, about = table(run), run.about
    long = [row | {"text": "many words " * 9 + row["text"]} for row in rows(characters=36)]
    with pytest.raises(BadInput, match="longer than the context"):
        trace(lineage, [small, Concept.from_file(write(tmp_path / "new.csv", long))], tmp_path / "out", QUICK)
    pd.testing.assert_frame_equal(table(run), before)
    assert run.about == about
    mended = Concept.from_file(write(tmp_path / "new.csv", rows(characters=30)))
    run = trace(lineage, [small, mended], tmp_path / "out", QUICK)
    assert set(run.records("metric = 'best_site'").concept) == {"small", "new"}


def test_changed_weights_replace_their_rows(home: Path, tmp_path: Path, small: Concept) -> None:
    folder = Path(shutil.copytree(home / "few", tmp_path / "few"))
    trace(Lineage.open(folder), [small], tmp_path / "out", QUICK)
    shutil.copy(home / "few" / "checkpoint-1" / "model.safetensors", folder / "checkpoint-3")
    run = trace(Lineage.open(folder), [small], tmp_path / "out", QUICK)
    assert visits(run)[4:] == ["checkpoint-3"]
    same(run, trace(Lineage.open(folder), [small], tmp_path / "fresh", QUICK))
    assert (
        run.query("select count(distinct unit) as units from records where step = 3 and metric = 'auroc'").units[0] == 1
    )
    assert len(list((tmp_path / "out" / "directions").iterdir())) == 3
