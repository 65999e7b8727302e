"""`ontogeny lens`: rows of agreement over layers and steps, resumable, with the corpus error of fitted lenses, and a view."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ontogeny.errors import BadInput
from ontogeny.jobs.lens import LensSettings, lens
from ontogeny.jobs.lens.measure import lens_rows
from ontogeny.models.model import load_model
from tests.helpers.command_line import Say

TEXTS = [f"{word} {number} stood by the {word}" for number, word in enumerate(["ship", "tree", "song", "lamp"] * 3)]
QUICK = LensSettings(lenses=("logit", "tuned", "jacobian"), tuned_steps=10, jacobian_texts=2, most_tokens=12)


@pytest.fixture(scope="module")
def lineage(tmp_path_factory: pytest.TempPathFactory, tiny) -> Path:
    folder = tmp_path_factory.mktemp("lens") / "run"
    for step in (1, 2):
        shutil.copytree(tiny("gpt_neox", seed=step), folder / f"checkpoint-{step}")
    return folder


@pytest.fixture(scope="module")
def run(lineage: Path):
    return lens(lineage, TEXTS, lineage.parent / "out", QUICK)


def test_rows_of_each_lens_layer_and_step(run, lineage: Path) -> None:
    found = run.records("metric = 'lens_agreement'")
    assert sorted(set(zip(found.method, found.step, found.layer, strict=True))) == [
        (kind, step, layer) for kind in ("jacobian", "logit", "tuned") for step in (1, 2) for layer in (0, 1, 2)
    ]
    assert (found[found.layer.eq(2)].value == 1).all()
    assert ((found.low <= found.value) & (found.value <= found.high)).all()
    model = load_model(lineage / "checkpoint-2")
    agree, count = 0, 0
    for text in TEXTS:
        ids = list(model.tokenizer(text).input_ids)[:12]
        with torch.no_grad():
            out = model.network(torch.tensor([ids]), output_hidden_states=True)
            norm = model.network.get_submodule(model.architecture.final_norm)
            seen = model.network.get_output_embeddings()(norm(out.hidden_states[1]))
        agree += int((seen.argmax(-1) == out.logits.argmax(-1))[0, 1:].sum())
        count += len(ids) - 1
    row = found[found.method.eq("logit") & found.step.eq(2) & found.layer.eq(1)].iloc[0]
    assert row.n == count
    assert row.value == pytest.approx(agree / count, abs=1e-6)


def test_fitted_lenses_tell_their_corpus_error(run) -> None:
    rows = run.records("metric = 'lens_corpus_error'")
    assert set(rows.method) == {"tuned", "jacobian"}
    kl = run.records("metric = 'lens_kl'").set_index(["method", "step", "layer"]).value
    assert (kl >= 0).all()
    assert kl["tuned", 2, 0] <= kl["logit", 2, 0] * 1.05
    assert set(run.records("metric = 'unembedding_rank'").step) == {1, 2}


def test_finished_units_are_not_measured_again(run, lineage: Path) -> None:
    before = len(run.ledger())
    again = lens(lineage, TEXTS, run.folder, QUICK)
    assert len(again.ledger()) == before
    assert again.about["finished"]


def test_view_and_command(run, lineage: Path, tmp_path: Path, say: Say) -> None:
    chart = run.show("lens").to_dict()
    assert "logit lens" in str(chart)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    done = say("lens", lineage, "--texts", texts, "--out", tmp_path / "out", "--lenses", "logit", "--quiet")
    assert done.code == 0, done.err
    assert "next: ontogeny show" in done.out
    assert "names the final token for half" in done.out


def test_refuses_too_few_texts_and_unknown_lenses(lineage: Path) -> None:
    with pytest.raises(BadInput, match="at least 4 different texts, got 1"):
        lens(lineage, ["a", "a"])
    with pytest.raises(BadInput, match="did you mean tuned"):
        LensSettings(lenses=("tune",))


def test_a_text_of_one_token_does_not_move_the_others_to_another_half(lineage: Path) -> None:
    model = load_model(lineage / "checkpoint-2")
    assert len(model.tokenizer("a").input_ids) == 1
    settings = LensSettings(lenses=("jacobian",), jacobian_texts=1, most_tokens=6)
    expected, rows = (lens_rows(model, texts, settings) for texts in (TEXTS[:4], ["a", *TEXTS[:4]]))
    assert [repr(row) for row in rows] == [repr(row) for row in expected]


def test_other_settings_replace_the_rows_of_the_same_lens_only(lineage: Path, tmp_path: Path) -> None:
    logit = LensSettings(lenses=("logit",), most_tokens=6)
    run = lens(lineage, TEXTS, tmp_path / "out", logit)
    lens(lineage, TEXTS[:6], run.folder, replace(logit, lenses=("tuned",), tuned_steps=0))
    before = run.records("metric = 'lens_kl'")
    assert before.groupby(["method", "step", "layer"]).size().eq(1).all()
    assert set(before.method) == {"logit", "tuned"}
    lens(lineage, TEXTS[:8], run.folder, logit)
    after = run.records("metric = 'lens_kl'")
    assert after.groupby(["method", "step", "layer"]).size().eq(1).all()
    kept = (after.method.eq("tuned"), before.method.eq("tuned"))
    assert after[kept[0]].value.tolist() == before[kept[1]].value.tolist()
    assert (after[~kept[0]].n < before[~kept[1]].n.min()).all()
