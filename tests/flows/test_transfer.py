"""Transfer of a planted concept: its diagonal equals the trace, and vectors have an effect only where the concept is used."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.findings.transfer_verdicts import final_transfer_sentences, transfer_verdicts
from ontogeny.jobs.transfer.measure import answer_margin_outcome
from ontogeny.jobs.transfer.plan import DEFAULT_READING_SETTINGS, TransferSettings
from ontogeny.jobs.transfer.transfer import transfer
from ontogeny.lineage import Lineage
from ontogeny.models.reusable import ReusableModel
from ontogeny.report.html import write_report
from ontogeny.steering.controls import compare_with_controls
from ontogeny.storage.run import Run
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import rows, save_run, write

PUSHES = {1: 0.0, 8: 6.0, 64: 8.0, 128: 8.0}
SPOKEN = {8: 0.0, 64: 1.0, 128: 1.0}
OPTIONS = TransferSettings(controls=20, shuffles=20)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    save_run(folder / "raised", PUSHES, answers=SPOKEN)
    write(folder / "coin.jsonl", rows(answers=True))
    write(folder / "bare.jsonl", rows())
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    return transfer(Lineage.open(place / "raised"), [_coin(place)], place / "run", OPTIONS)


def _coin(place: Path) -> Concept:
    return Concept.from_file(place / "coin.jsonl")


def _value(run: Run, metric: str, target: int, source: int, extra: str = "") -> float:
    found = run.records(
        f"metric = '{metric}' and step = {target} and coords['source_step'] = '{source}' and control is null {extra}"
    )
    assert len(found) == 1, (metric, target, source, len(found))
    return float(found.value.iloc[0])


def test_diagonal_equals_the_trace(run: Run) -> None:
    for step in PUSHES:
        for method in ("logistic", "mass_mean"):
            of = f"and method = '{method}'"
            site = run.records("metric = 'transfer_auroc'").site.iloc[0]
            traced = run.records(f"metric = 'auroc' and control is null and step = {step} and site = '{site}' {of}")
            assert _value(run, "transfer_auroc", step, step, of) == pytest.approx(float(traced.value.iloc[0]), abs=1e-6)
            assert _value(run, "transfer_cosine", step, step, of) == pytest.approx(1.0, abs=1e-5)
            for centring in ("none", "own"):
                accuracy = run.records(
                    f"metric = 'accuracy' and control is null and step = {step} and site = '{site}' {of}"
                )
                told = _value(run, "transfer_accuracy", step, step, f"{of} and coords['centring'] = '{centring}'")
                assert told == pytest.approx(float(accuracy.value.iloc[0]), abs=0.02)


def test_planted_concept_transfers_and_absent_one_does_not(run: Run) -> None:
    assert _value(run, "transfer_auroc", 128, 64, "and method = 'logistic'") > 0.95
    assert _value(run, "transfer_auroc", 128, 8, "and method = 'logistic'") > 0.95
    # Where a concept stands out as far as here, a direction that knows nothing reads it, too: the reverse is at chance.
    assert 0.2 < _value(run, "transfer_auroc", 1, 1, "and method = 'logistic'") < 0.8
    assert 0.2 < _value(run, "transfer_auroc", 1, 128, "and method = 'logistic'") < 0.8
    assert _value(run, "transfer_cosine", 128, 64, "and method = 'mass_mean'") > 0.9
    assert abs(_value(run, "transfer_cosine", 128, 1, "and method = 'mass_mean'")) < 0.6


def test_vector_has_effect_only_where_concept_is_used(run: Run) -> None:
    assert _value(run, "transfer_effect", 128, 64) > 1.0
    assert _value(run, "transfer_q", 128, 64) <= 0.1
    assert abs(_value(run, "transfer_effect", 8, 64)) < 0.5
    null = run.records("metric = 'transfer_effect' and control = 'random_direction' and step = 128")
    assert len(null) == 1
    assert _value(run, "transfer_effect", 128, 64) > float(null.high.iloc[0])
    assert float(null.n.iloc[0]) == 20
    assert _value(run, "transfer_cost", 128, 64) > 0


def test_effect_on_itself_equals_compare_with_controls(place: Path, run: Run) -> None:
    from ontogeny.interventions import Add
    from ontogeny.lineage import fetch_checkpoint
    from ontogeny.measurements.design import make_design
    from ontogeny.models.model import load_model

    checkpoint = Lineage.open(place / "raised").checkpoints[-1]
    folder = fetch_checkpoint(checkpoint)
    model = load_model(folder, tokenizer=folder.parent)
    site = str(run.records("metric = 'transfer_effect'").site.iloc[0])
    vector = run.direction("coin", site=site, step=128).scaled("std")
    outcome = answer_margin_outcome(model, make_design(_coin(place), DEFAULT_READING_SETTINGS))
    told = compare_with_controls(
        lambda edits: float(outcome.measure(edits).mean()), [(site, Add(vector), "last")], seeds=range(20)
    )
    assert _value(run, "transfer_effect", 128, 128) == pytest.approx(told.value, abs=1e-4)
    p = run.records("metric = 'transfer_p' and step = 128 and coords['source_step'] = '128'").set_index("control").value
    assert _value(run, "transfer_p", 128, 128) == pytest.approx(told.p)
    assert set(p.index.dropna()) == {"shuffled_label"}
    null = run.records("metric = 'transfer_effect' and control = 'random_direction' and step = 128")
    assert float(null.low.iloc[0]) == pytest.approx(told.low, abs=1e-4)
    assert float(null.high.iloc[0]) == pytest.approx(told.high, abs=1e-4)


def test_checkpoints_are_loaded_twice_or_once_after_a_trace(
    place: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    whole = ReusableModel.load

    def counted(self: ReusableModel, folder: Path) -> object:
        loads.append(folder.name)
        return whole(self, folder)

    monkeypatch.setattr(ReusableModel, "load", counted)
    lineage = Lineage.open(place / "raised")
    transfer(lineage, [_coin(place)], tmp_path / "new", TransferSettings(effect=False))
    assert sorted(loads) == sorted(f"checkpoint-{step}" for step in PUSHES for _ in range(2))
    loads.clear()
    again = tmp_path / "again"
    shutil.copytree(run.folder, again)
    for part in (again / "records").glob("transfer*"):
        part.unlink()
    transfer(lineage, [_coin(place)], again, TransferSettings(effect=False), traced=True)
    assert sorted(loads) == sorted(f"checkpoint-{step}" for step in PUSHES)
    loads.clear()
    transfer(lineage, [_coin(place)], again, TransferSettings(effect=False), traced=True)
    assert loads == []  # what is done is not done twice


def test_failed_transfer_leaves_run_unchanged(
    place: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Path(shutil.copytree(run.folder, tmp_path / "again"))

    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(again.rglob("*")) if path.is_file()}

    def fail(*_: object, **__: object) -> None:
        raise KeyError("broken")

    monkeypatch.setattr("ontogeny.jobs.transfer.transfer.cross_auroc_rows", fail)
    before = state()
    with pytest.raises(KeyError, match="broken"):
        transfer(Lineage.open(place / "raised"), [_coin(place)], again, TransferSettings(controls=21, shuffles=20))
    assert state() == before


def test_pairs_do_not_depend_on_other_checkpoints(place: Path, run: Run, tmp_path: Path) -> None:
    few = transfer(Lineage.open(place / "raised").select("8,128"), [_coin(place)], tmp_path / "few", OPTIONS)
    site = str(run.records("metric = 'transfer_effect'").site.iloc[0])
    assert set(few.records("metric = 'transfer_effect'").site) == {site}
    for metric, of in (("transfer_auroc", "and method = 'logistic'"), ("transfer_effect", ""), ("transfer_p", "")):
        assert _value(few, metric, 128, 8, of) == pytest.approx(_value(run, metric, 128, 8, of), abs=1e-4)


@pytest.mark.usefixtures("one_view")
def test_single_target_gets_averages(place: Path, run: Run, tmp_path: Path) -> None:
    again = tmp_path / "into"
    shutil.copytree(run.folder, again)
    options = TransferSettings(into="last", controls=100, shuffles=40)
    found = transfer(Lineage.open(place / "raised"), [_coin(place)], again, options, traced=True)
    here = found.records("metric = 'transfer_effect' and step = 128 and coords['average_of'] is not null")
    assert sorted({dict(c)["average_of"] for c in here.coords}) == ["1", "2"]
    assert len(found.records("metric = 'transfer_effect' and step = 128 and coords['source_step'] = '64'")) == 1
    verdict = transfer_verdicts(found.records(), found.about, ["coin"])[-1]
    assert (verdict.step, verdict.sources) == (128, 3)
    assert verdict.own_works
    assert verdict.working == 2
    assert "coin into pretrain 128" in verdict.sentence
    assert found.about["transfers"]["coin"]["into"] == "last"
    page = write_report(found.records(), found.about, tmp_path / "report.html").read_text()
    assert '<section id="steering">' in page
    assert verdict.sentence in page
    assert final_transfer_sentences(transfer_verdicts(found.records(), found.about)) == {"coin": [verdict.sentence]}


def test_equal_cost_scales_vectors_to_the_same_kl(place: Path, run: Run, tmp_path: Path) -> None:
    again = tmp_path / "equal"
    shutil.copytree(run.folder, again)
    options = TransferSettings(
        into="last", controls=20, shuffles=20, equal_cost=0.01, neutral=("so they say x", "it was told b")
    )
    lineage = Lineage.open(place / "raised").select("64,128")
    found = transfer(lineage, [_coin(place)], again, options, traced=True)
    costs = found.records("metric = 'transfer_cost' and step = 128 and n > 0").value
    assert len(costs) >= 2
    assert ((costs - 0.01).abs() < 0.001).all()
    alphas = {
        dict(c)["alpha"] for c in found.records("metric = 'transfer_effect' and step = 128").coords if "alpha" in c
    }
    assert "1" not in alphas


def test_source_lengths_have_their_own_nulls(place: Path, run: Run, tmp_path: Path) -> None:
    again = tmp_path / "source"
    shutil.copytree(run.folder, again)
    options = TransferSettings(into="last", controls=20, shuffles=20, length="source")
    found = transfer(Lineage.open(place / "raised").select("8,128"), [_coin(place)], again, options, traced=True)
    null = found.records("metric = 'transfer_effect' and step = 128 and control = 'random_direction'")
    assert {dict(c)["source_step"] for c in null.coords if "source_step" in dict(c)} == {"8", "128"}
    assert _value(found, "transfer_effect", 128, 128) == pytest.approx(
        _value(run, "transfer_effect", 128, 128), abs=1e-4
    )
    assert _value(found, "transfer_effect", 128, 8) < _value(run, "transfer_effect", 128, 8)  # 6 of 8 as long


def test_effect_without_answers_uses_the_targets_probe(place: Path, tmp_path: Path) -> None:
    concept = Concept.from_file(place / "bare.jsonl")
    lineage = Lineage.open(place / "raised").select("8,128")
    found = transfer(lineage, [concept], tmp_path / "run", TransferSettings(controls=20, shuffles=20, site="resid.1"))
    assert _value(found, "transfer_effect", 128, 8, "and coords['outcome'] = 'readout'") > 0.5
    null = found.records("metric = 'transfer_effect' and control = 'random_direction' and step = 128")
    assert _value(found, "transfer_effect", 128, 8) > float(null.high.iloc[0])


def test_effect_at_readout_site_is_absent_with_reason(place: Path, tmp_path: Path) -> None:
    concept = Concept.from_file(place / "bare.jsonl")
    lineage = Lineage.open(place / "raised").select("64,128")
    found = transfer(lineage, [concept], tmp_path / "run", TransferSettings(site="resid.2"))
    rows = found.records("metric = 'transfer_effect'")
    assert rows.value.isna().all()
    assert rows.n.eq(0).all()
    assert rows.note.str.contains("dot product").all()
    assert "dot product" in transfer_verdicts(found.records(), found.about)[0].sentence
    assert _value(found, "transfer_auroc", 128, 64, "and method = 'logistic'") > 0.9


BAD = {
    "one checkpoint": (["--steps", "last"], "at least two checkpoints"),
    "no such target": (["--target", "7"], "7"),
    "no such site": (["--site", "resid.9"], "resid.9"),
    "in the residual stream": (["--site", "mlp.1"], "in the residual stream"),
    "alpha": (["--alpha", "nan"], "alpha"),
    "few controls": (["--controls", "3"], "at least 20"),
    "length": (["--length", "long"], "length"),
    "cost": (["--equal-kl", "0"], "above 0"),
}


@pytest.fixture
def carry(place: Path, say: Say) -> Say:
    return partial(say, "transfer", place / "raised", "-c", place / "coin.jsonl")


@pytest.mark.parametrize("what", BAD)
def test_bad_options_are_one_line(what: str, run: Run, carry: Say) -> None:
    given, told = BAD[what]
    code, _, err = carry("--run", run.folder, *given)
    assert code == 2
    assert told in err
    assert err.strip().count("\n") == 0


def test_rejects_other_runs_and_two_widths(place: Path, run: Run, tmp_path: Path, carry: Say) -> None:
    for given, told in ((), "--out"), (("--run", tmp_path / "none"), "not a run directory"):
        code, _, err = carry(*given)
        assert code == 2
        assert told in err
    other = tmp_path / "other"
    shutil.copytree(run.folder, other)
    about = json.loads((other / "run.json").read_text())
    about["lineage"]["name"] = "another"
    (other / "run.json").write_text(json.dumps(about))
    code, _, err = carry("--out", other)
    assert code == 2
    assert "another" in err
    wide = tmp_path / "raised"
    shutil.copytree(place / "raised", wide)
    config = json.loads((wide / "checkpoint-8" / "config.json").read_text())
    (wide / "checkpoint-8" / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    with pytest.raises(BadInput, match=r"one width, got 32 of .* 64"):
        transfer(Lineage.open(wide), [_coin(place)], tmp_path / "wide", OPTIONS)
    assert not (tmp_path / "wide").exists()


def test_command_prints_plan_and_result(run: Run, carry: Say) -> None:
    line = ["--run", run.folder, "--controls", "20", "--shuffles", "20"]
    told = json.loads(carry(*line, "--dry-run", "--json").out)
    assert (told["sources"], told["targets"], told["to_trace"], told["loads"]) == (4, 4, 0, 4)
    tested = run.records("metric = 'transfer_p' and control is null and value is not null")
    assert told["effects"] == len(tested) == 22, "each on each, and six averages on the last"
    assert "too few controls to tell of an effect that is alone (440 needed)" in carry(*line, "--dry-run").out
    assert ": pretrain 1; 8; 64; 128" in carry(*line, "--dry-run").out
    made = json.loads(carry(*line, "--no-effect", "--json").out)
    assert {row["target"] for row in made["stages"]} == {"pretrain 1", "pretrain 128"}
    assert torch.tensor([row["cosine"] for row in made["stages"]]).abs().max() <= 1.0001
