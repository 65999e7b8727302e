"""The main job as its users meet it: finishes, resumes, grows, refuses, survives a kill, and finds what was planted, when it was."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from ontogeny import cli
from ontogeny.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.lab import visitor as job
from ontogeny.lab.settings import Settings
from ontogeny.lab.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.position import Position
from ontogeny.run import Run
from tests.flows.lineages import RISE, SPOKEN, planted, rows, save_run, write
from tests.models import byte_tokenizer

QUICK = Settings(sites="resid", resamples=100, permutations=100)
FEW = {1: 0.0, 2: 4.0, 3: 8.0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs and concept files that no test changes."""
    home = tmp_path_factory.mktemp("home")
    save_run(home / "rise", RISE, answers=SPOKEN)
    save_run(home / "few", FEW)
    write(home / "planted.csv", rows(answers=True))
    write(home / "small.csv", rows(characters=36))
    write(home / "others.jsonl", rows(characters=44)[8:])
    return home


@pytest.fixture
def small(home: Path) -> Concept:
    return Concept.from_file(home / "small.csv")


@pytest.fixture
def others(home: Path) -> Concept:
    return Concept.from_file(home / "others.jsonl")


@pytest.fixture(scope="module")
def rise(home: Path) -> Run:
    """The planted concept over the whole run, with answers."""
    concepts = [Concept.from_file(home / "planted.csv")]
    return trace(
        Lineage.open(home / "rise"),
        concepts,
        home / "out" / "rise",
        Settings(sites="resid", resamples=200, permutations=200),
    )


def table(run: Run, where: str = "true") -> pd.DataFrame:
    """All rows in one order, whatever the order in which they were written; the map as text."""
    found = run.records(where)
    found["coords"] = found.coords.map(lambda coords: json.dumps(dict(coords), sort_keys=True))
    return found.sort_values(list(found.columns), ignore_index=True)


def same(a: Run, b: Run) -> None:
    pd.testing.assert_frame_equal(table(a), table(b), check_exact=True)


def visits(run: Run) -> list[str]:
    return [line["checkpoint"] for line in run.ledger()]


def units(run: Run) -> list[str]:
    return [unit for line in run.ledger() for unit in line.get("units", [])]


def event(run: Run, metric: str, form: str = "half", method: str = "logistic") -> pd.Series:
    found = run.records(f"metric = '{metric}' and method = '{method}' and coords['form'] = '{form}'")
    assert len(found) == 1
    return found.iloc[0]


# --- what it finds ----------------------------------------------------------------------------------------------------------


def test_the_planted_concept_emerges_when_it_was_planted(rise: Run) -> None:
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


def test_it_is_readable_before_it_is_used(rise: Run) -> None:
    used = event(rise, "used_step", method="likelihood")
    assert 32 <= used.low < used.value < used.high <= 64
    difference = event(rise, "readable_minus_used")
    assert difference.low < difference.value < difference.high < 0
    by_step = rise.records("metric = 'answer_accuracy'").set_index("step").value
    assert by_step[128] == 1.0
    assert by_step[16] < 0.65


def test_floors_stand_beside_the_score(rise: Run) -> None:
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


def test_every_row_says_what_it_is(rise: Run) -> None:
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
    settings = Settings(sites="resid", resamples=200, permutations=200)
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


# --- resume, grow, refuse ---------------------------------------------------------------------------------------------------


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("a checkpoint was read")

    monkeypatch.setattr(job, "capture", refuse)
    monkeypatch.setattr(job.models, "load", refuse)
    monkeypatch.setattr(job.models, "untrained", refuse)


def test_a_second_start_computes_nothing(home: Path, tmp_path: Path, small: Concept, monkeypatch) -> None:
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


def test_a_run_that_grew_equals_one_made_at_once(home: Path, tmp_path: Path, small: Concept, others: Concept) -> None:
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


def test_a_concept_traced_alone_keeps_the_others(home: Path, tmp_path: Path, small: Concept, others: Concept) -> None:
    lineage = Lineage.open(home / "few").select("1,3")
    trace(lineage, [small], tmp_path / "out", QUICK)
    run = trace(lineage, [others], tmp_path / "out", QUICK)
    assert {c["name"] for c in run.about["concepts"]} == {"small", "others"}
    assert set(run.records("metric = 'best_site'").concept) == {"small", "others"}


def test_a_floor_of_its_own_replaces_the_random_one(home: Path, tmp_path: Path, small: Concept) -> None:
    folder = Path(shutil.copytree(home / "few", tmp_path / "few"))
    trace(Lineage.open(folder), [small], tmp_path / "grown", QUICK)
    planted(0.0).save_pretrained(folder / "checkpoint-0")
    grown = trace(Lineage.open(folder), [small], tmp_path / "grown", QUICK)
    once = trace(Lineage.open(folder), [small], tmp_path / "once", QUICK)
    same(grown, once)
    of_start = set(once.records("step = 0 and metric = 'fisher'").unit)
    assert set(once.records("control = 'untrained'").unit) == of_start
    assert len(of_start) == 1
    assert "untrained" not in visits(once)


def test_other_examples_under_one_name_are_refused(home: Path, tmp_path: Path, small: Concept, monkeypatch) -> None:
    lineage = Lineage.open(home / "few").select("1")
    run = trace(lineage, [small], tmp_path / "out", QUICK)
    before, about = table(run), run.about
    write(tmp_path / "small.csv", rows(characters=37))
    forbid(monkeypatch)
    with pytest.raises(BadInput, match=r"holds other examples under the name 'small'\. Rename"):
        trace(lineage, [Concept.from_file(tmp_path / "small.csv")], tmp_path / "out", QUICK)
    for other, what in (
        (Settings(sites="resid", resamples=100, permutations=100, seed=1), "seed = 0, now it is 1"),
        (Settings(sites="resid,mlp", resamples=100, permutations=100), "sites = resid, now it is resid,mlp"),
    ):
        with pytest.raises(BadInput, match=f"was traced with {what}"):
            trace(lineage, [small], tmp_path / "out", other)
    with pytest.raises(BadInput, match="holds a trace of few, not of rise"):
        trace(Lineage.open(home / "rise"), [small], tmp_path / "out", QUICK)
    pd.testing.assert_frame_equal(table(run), before)
    assert run.about == about


def test_a_concept_that_cannot_be_read_leaves_a_run_as_it_was(home: Path, tmp_path: Path, small: Concept) -> None:
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


def test_weights_that_changed_replace_their_rows(home: Path, tmp_path: Path, small: Concept) -> None:
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


# --- a broken checkpoint, a killed process ----------------------------------------------------------------------------------


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-W", "error", "-c", "from ontogeny.cli import main; main()", *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def test_one_broken_checkpoint_does_not_stop_the_others(home: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    folder = Path(shutil.copytree(home / "few", tmp_path / "few"))
    network = planted(0.0)
    with torch.no_grad():
        network.gpt_neox.embed_in.weight[7, 7] = torch.inf
    network.save_pretrained(folder / "checkpoint-4")
    cut = Path(shutil.copytree(folder / "checkpoint-2", folder / "checkpoint-5")) / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-9])
    argv = ["trace", folder, "-c", home / "small.csv", "-o", tmp_path / "out", "--sites", "resid"]
    monkeypatch.setattr(sys, "argv", ["ontogeny", *map(str, argv)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    shown = capsys.readouterr()
    run = Run.open(tmp_path / "out")
    assert set(run.records("metric = 'auroc' and control is null").step) == {1, 2, 3}
    failures = {f["checkpoint"]: f["reason"] for f in run.about["failures"]}
    assert set(failures) == {"checkpoint-4", "checkpoint-5"}
    assert "not finite" in failures["checkpoint-4"]
    assert "cut off" in failures["checkpoint-5"]
    for name in failures:
        assert f"not traced: {name}: " in shown.out
    assert "Traceback" not in shown.err
    ledger = [(line["checkpoint"], "failed" in line) for line in run.ledger()]
    assert ledger[-1] == ("checkpoint-4", True)


def test_a_killed_job_resumes(home: Path, tmp_path: Path) -> None:
    argv = ["trace", home / "rise", "-c", home / "small.csv", "-c", home / "others.jsonl", "--sites", "resid,head"]
    argv += ["-o", tmp_path / "killed" / "out"]
    process = subprocess.Popen(command(*argv), env=environment(), stderr=subprocess.PIPE, text=True)
    records = tmp_path / "killed" / "out" / "records"
    limit = time.monotonic() + 120
    # Surface of both, the floor of both, and one unit at least: killed in the middle of what follows.
    while len(list(records.glob("*.parquet")) if records.is_dir() else []) < 7:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run = Run.open(tmp_path / "killed" / "out")
    finished = {path.stem for path in records.glob("*.parquet")}
    kept = {path: path.stat().st_mtime_ns for path in records.glob("*.parquet")}
    assert not run.about["finished"]
    lineage, concepts = (
        Lineage.open(home / "rise"),
        [Concept.from_file(home / n) for n in ("small.csv", "others.jsonl")],
    )
    logged = len(run.ledger())
    trace(lineage, concepts, run.folder, Settings(sites="resid,head"))
    again = {unit for line in run.ledger()[logged:] for unit in line["units"]}
    assert again
    assert not again & finished
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    same(run, trace(lineage, concepts, tmp_path / "whole" / "out", Settings(sites="resid,head")))
    assert run.about["finished"]


def test_a_job_killed_before_its_first_unit_resumes(home: Path, tmp_path: Path, small: Concept, monkeypatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    lineage = Lineage.open(home / "few").select("1")
    for name in ("trace.surface.audit", "standing.models.load"):
        with monkeypatch.context() as patch:
            patch.setattr(f"ontogeny.lab.{name}", kill)
            patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)  # a killed process tidies nothing up
            patch.setattr("pathlib.Path.rmdir", lambda *_: None)
            with pytest.raises(Killed):
                trace(lineage, [small], tmp_path / "out", QUICK)
    assert (tmp_path / "out" / "run.json").is_file()
    run = trace(lineage, [small], tmp_path / "out", QUICK)
    assert run.about["finished"]
    assert (
        run.about["concepts"][0]["warnings"]
        == trace(lineage, [small], tmp_path / "b", QUICK).about["concepts"][0]["warnings"]
    )


# --- kinds of lineages, concepts and settings --------------------------------------------------------------------------------


def test_stages_give_rows_with_their_stage(home: Path, tmp_path: Path, small: Concept) -> None:
    folder = Path(shutil.copytree(home / "few", tmp_path / "run" / "base"))
    byte_tokenizer().save_pretrained(tmp_path / "run")
    save_run(tmp_path / "run" / "sft", {0: 8.0, 5: 2.0})
    (tmp_path / "run" / "lineage.toml").write_text(
        '[[stages]]\nname = "pretrain"\nsource = "base"\n[[stages]]\nname = "sft"\nsource = "sft"\n'
    )
    assert folder.is_dir()
    run = trace(Lineage.open(tmp_path / "run"), [small], tmp_path / "out", QUICK)
    scores = run.records("metric = 'auroc' and control is null and site = 'resid.1' and method = 'logistic'")
    assert sorted(zip(scores.stage, scores.step, strict=True)) == [
        ("pretrain", 1),
        ("pretrain", 2),
        ("pretrain", 3),
        ("sft", 0),
        ("sft", 5),
    ]
    # Step 0 of fine-tuning is a trained model, no floor.
    floor = run.records("control = 'untrained' and metric = 'auroc' and method = 'logistic'")
    assert floor.step.isna().all()
    assert floor.value.max() < 0.75
    assert set(run.records("metric = 'emergence_step'").stage) == {"pretrain", "sft"}
    final = run.records("metric = 'cosine_final' and method = 'mass_mean' and site = 'resid.1'")
    assert final.set_index(["stage", "step"]).value["sft", 5] == pytest.approx(1)
    assert run.about["lineage"]["parents"] == {"pretrain": None, "sft": "pretrain"}
    assert run.direction("small", site="resid.1").origin.startswith("small@checkpoint-5")
    assert run.direction("small", site="resid.1", stage="pretrain").origin.startswith("small@checkpoint-3")


def test_classes_and_numbers(home: Path, tmp_path: Path) -> None:
    concepts = [
        Concept.from_file(write(tmp_path / f"{kind}.csv", rows(characters=60, kind=kind)))
        for kind in ("classes", "number")
    ]
    run = trace(Lineage.open(home / "few"), concepts, tmp_path / "out", QUICK)
    scores = run.records("control is null and metric in ('auroc', 'accuracy', 'r2') and step is not null")
    assert set(zip(scores.concept, scores.metric, scores.method, strict=True)) == {
        ("classes", "auroc", "logistic"),
        ("classes", "accuracy", "logistic"),
        ("number", "r2", "ridge"),
    } | {("classes", m, f) for m in ("auroc", "accuracy") for f in set(scores.method) - {"ridge"}}
    assert scores.value.notna().all()
    assert set(run.records("metric = 'best_site'").concept) == {"classes", "number"}
    with pytest.raises(BadInput, match="has 3 classes and so no single direction"):
        run.direction("classes", site="resid.1", method="logistic")
    assert run.direction("number", site="resid.1", method="ridge").vector.shape == (32,)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_model_without_a_step(family: str, tmp_path: Path, tiny, small: Concept) -> None:
    run = trace(Lineage.open(tiny(family)), [small], tmp_path / "out", Settings(resamples=100, permutations=100))
    scores = run.records("metric = 'auroc' and control is null and method = 'logistic' and stage is not null")
    assert len(scores) == 3 + 2 * 4
    assert scores.step.isna().all()
    assert run.records("metric = 'emergence_step'").value.isna().all()
    assert run.direction("small", site="head.2.3").vector.shape == (8,)


def test_the_paper_protocol_splits_by_order(home: Path, tmp_path: Path, small: Concept) -> None:
    paper = Settings(sites="resid", protocol="paper", resamples=100, permutations=100)
    run = trace(Lineage.open(home / "few").select("1,3"), [small], tmp_path / "out", paper)
    scores = run.records("metric = 'accuracy' and control is null and method = 'logistic' and step = 3")
    assert len(scores) == 3
    assert set(scores.n) == {len(small.examples) - round(0.8 * len(small.examples))}
    assert not run.records("metric = 'nhsic_ty' and method = 'gaussian_50' and control is null").value.isna().any()


def test_position_limit_and_truncation(home: Path, tmp_path: Path, small: Concept) -> None:
    lineage = Lineage.open(home / "few").select("3")
    read = trace(
        lineage, [Concept.from_file(home / "small.csv", position=Position.parse("mean"))], tmp_path / "mean", QUICK
    )
    assert set(read.records("metric = 'auroc' and control is null and step = 3").position) == {"mean"}
    assert read.direction("small", site="resid.1").position == "mean"
    few = trace(lineage, [small.limited(40)], tmp_path / "few", QUICK)
    assert few.ledger()[0]["forwards"] == 40
    long = [row | {"text": "many words " * 9 + row["text"]} for row in rows(characters=36)]
    concept = Concept.from_file(write(tmp_path / "long.csv", long))
    cut = Settings(sites="resid", resamples=100, permutations=100, truncate=True)
    run = trace(lineage, [concept], tmp_path / "cut", cut)
    last = run.ledger()[-1]
    assert last["tokens"] == 64 * last["forwards"]
    # The last token is still the planted character, so the concept is still read.
    assert run.records("metric = 'auroc' and control is null and method = 'logistic'").value.max() > 0.9


def test_bfloat16(home: Path, tmp_path: Path, small: Concept) -> None:
    half = Settings(sites="resid,head,neuron", resamples=100, permutations=100, dtype="bfloat16")
    run = trace(Lineage.open(home / "few").select("1,3"), [small], tmp_path / "out", half)
    scores = run.records("metric = 'auroc' and control is null and method = 'logistic' and site = 'resid.1'")
    by_step = scores.set_index("step").value
    assert by_step[3] > 0.9
    assert by_step[1] < 0.75


def test_no_floor_where_none_is_wanted(home: Path, tmp_path: Path, small: Concept) -> None:
    bare = Settings(sites="resid", resamples=100, permutations=100, untrained=False)
    run = trace(Lineage.open(home / "few").select("1"), [small], tmp_path / "out", bare)
    assert visits(run) == ["checkpoint-1"]
    assert run.records("control = 'untrained'").empty
