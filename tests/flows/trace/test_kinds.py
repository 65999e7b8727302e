"""Stages, classes, numbers, single models, positions, precisions: every kind of lineage, concept and setting is traced."""

import shutil
from pathlib import Path

import pytest

from ontogeny.data.concept import Concept
from ontogeny.data.positions import Position
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from tests.helpers.planted_lineages import rows, save_run, write
from tests.helpers.tiny_models import byte_tokenizer
from tests.helpers.trace_runs import QUICK, visits


def test_rows_name_their_stage(home: Path, tmp_path: Path, small: Concept) -> None:
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


def test_classes_and_numbers_are_traced(home: Path, tmp_path: Path) -> None:
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
    with pytest.raises(BadInput, match="must have two classes for a direction, got 3"):
        run.direction("classes", site="resid.1", method="logistic")
    assert run.direction("number", site="resid.1", method="ridge").vector.shape == (32,)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_single_model_without_step_is_traced(family: str, tmp_path: Path, tiny, small: Concept) -> None:
    run = trace(Lineage.open(tiny(family)), [small], tmp_path / "out", TraceSettings(resamples=100, permutations=100))
    scores = run.records("metric = 'auroc' and control is null and method = 'logistic' and stage is not null")
    assert len(scores) == 3 + 2 * 4
    assert scores.step.isna().all()
    assert run.records("metric = 'emergence_step'").value.isna().all()
    assert run.direction("small", site="head.2.3").vector.shape == (8,)


def test_paper_protocol_splits_by_order(home: Path, tmp_path: Path, small: Concept) -> None:
    paper = TraceSettings(sites="resid", protocol="paper", resamples=100, permutations=100)
    run = trace(Lineage.open(home / "few").select("1,3"), [small], tmp_path / "out", paper)
    scores = run.records("metric = 'accuracy' and control is null and method = 'logistic' and step = 3")
    assert len(scores) == 3
    assert set(scores.n) == {len(small.examples) - int(0.8 * len(small.examples))}
    assert not run.records("metric = 'nhsic_ty' and method = 'gaussian_50' and control is null").value.isna().any()


def test_position_limit_and_truncation_are_applied(home: Path, tmp_path: Path, small: Concept) -> None:
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
    cut = TraceSettings(sites="resid", resamples=100, permutations=100, truncate=True)
    run = trace(lineage, [concept], tmp_path / "cut", cut)
    last = run.ledger()[-1]
    assert last["tokens"] == 64 * last["forwards"]
    # The last token is still the planted character, so the concept is still read.
    assert run.records("metric = 'auroc' and control is null and method = 'logistic'").value.max() > 0.9


def test_bfloat16_finds_the_concept(home: Path, tmp_path: Path, small: Concept) -> None:
    half = TraceSettings(sites="resid,head,neuron", resamples=100, permutations=100, dtype="bfloat16")
    run = trace(Lineage.open(home / "few").select("1,3"), [small], tmp_path / "out", half)
    scores = run.records("metric = 'auroc' and control is null and method = 'logistic' and site = 'resid.1'")
    by_step = scores.set_index("step").value
    assert by_step[3] > 0.9
    assert by_step[1] < 0.75


def test_no_floor_if_untrained_is_off(home: Path, tmp_path: Path, small: Concept) -> None:
    bare = TraceSettings(sites="resid", resamples=100, permutations=100, untrained=False)
    run = trace(Lineage.open(home / "few").select("1"), [small], tmp_path / "out", bare)
    assert visits(run) == ["checkpoint-1"]
    assert run.records("control = 'untrained'").empty
