"""`ontogeny geometry`: rows of each checkpoint and pair, resumed without work, and models that cannot be compared."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ontogeny.embeddings import GeometrySettings, global_similarity
from ontogeny.errors import BadInput
from ontogeny.jobs.geometry import embedding_geometry, plan_geometry
from ontogeny.models.model import load_model
from tests.helpers.command_line import Say

QUICK = GeometrySettings(local_tokens=40, dimension_neighbours=8, neighbours=4, hidden_tokens=20, nulls=5)
TEXTS = [
    f"the {word} {number} stood by the old {word}" for number, word in enumerate(["ship", "tree", "song", "lamp"] * 3)
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny) -> tuple[Path, Path]:
    """A lineage of two steps, and another model of the same tokenizer whose embeddings are those of the last step, turned."""
    home = tmp_path_factory.mktemp("geometry")
    for step in (1, 2):
        shutil.copytree(tiny("gpt_neox", seed=step), home / "run" / f"checkpoint-{step}")
    model = load_model(home / "run" / "checkpoint-2")
    weight = model.network.get_input_embeddings().weight
    turn = torch.linalg.qr(torch.randn(model.d, model.d, generator=torch.Generator().manual_seed(0)))[0]
    with torch.no_grad():
        weight.copy_(weight @ turn)
    model.network.save_pretrained(home / "turned")
    for file in (home / "run" / "checkpoint-2").glob("*token*"):
        shutil.copy(file, home / "turned")
    return home / "run", home / "turned"


@pytest.fixture(scope="module")
def run(models: tuple[Path, Path]):
    return embedding_geometry(models, models[0].parent / "out", settings=QUICK)


def test_rows_of_each_checkpoint_and_pair(run, models: tuple[Path, Path]) -> None:
    rows = run.records("metric = 'embedding_similarity' and method = 'pearson' and control is null")
    coords = [dict(c) for c in rows.coords]
    pairs = {
        (row.lineage, row.step, c["against"], c["other_model"])
        for row, c in zip(rows.itertuples(), coords, strict=True)
    }
    assert pairs == {
        ("run", 1, "last", "run"), ("run", 2, "previous", "run"), ("run", 2, "stage_start", "run"), ("run", 2, "model", "turned"),
    }  # fmt: skip
    by = {(c["against"], c["space"], c["form"]): row.value for row, c in zip(rows.itertuples(), coords, strict=True)}
    assert by["model", "embedding", "raw"] == pytest.approx(1, abs=1e-4)
    assert by["previous", "embedding", "raw"] == pytest.approx(by["last", "embedding", "raw"], abs=1e-6)
    plan = plan_geometry(models, settings=QUICK)
    both = [
        load_model(models[0] / f"checkpoint-{step}").network.get_input_embeddings().weight.detach() for step in (1, 2)
    ]
    known = global_similarity(*(rows[plan.tokens.ids] for rows in both)).pearson.value
    assert by["last", "embedding", "raw"] == pytest.approx(known, abs=1e-5)
    turned = run.records("metric = 'local_similarity' and control is null and coords['against'] = 'model'")
    assert [v for v, c in zip(turned.value, turned.coords, strict=True) if c["space"] == "embedding"] == [
        pytest.approx(1, abs=1e-3)
    ]
    hidden = run.records("metric = 'hidden_similarity' and control is null and coords['against'] = 'model'")
    assert set(hidden.site) == {"resid.0", "resid.1", "resid.2"}
    own = run.records("metric in ('intrinsic_dimension', 'local_dimension') and control is null")
    assert set(zip(own.lineage, own.step.fillna(-1), strict=True)) == {("run", 1.0), ("run", 2.0), ("turned", -1.0)}
    tokens = run.records("metric = 'token_dimension'")
    assert {dict(c)["part"] for c in tokens.coords} == {"lowest", "highest"}
    assert run.records("metric = 'geometry_step'").note.notna().all()  # two checkpoints tell of no step


def test_finished_units_are_not_measured_again(run, models: tuple[Path, Path]) -> None:
    before, parts = len(run.ledger()), sorted(path.name for path in (run.folder / "records").iterdir())
    again = embedding_geometry(models, run.folder, settings=QUICK)
    assert len(again.ledger()) == before
    assert sorted(path.name for path in (run.folder / "records").iterdir()) == parts


def test_command_prints_plan_and_outcome(models: tuple[Path, Path], tmp_path: Path, say: Say) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS))
    options = [
        "--neighbours",
        3,
        "--dimension-neighbours",
        6,
        "--hidden-tokens",
        0,
        "--nulls",
        5,
        "--out",
        tmp_path / "out",
    ]
    planned = say("geometry", *models, "--texts", texts, *options, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    plan = json.loads(planned.out)
    assert (plan["to_read"], plan["comparisons"], plan["frequency"]) == (3, 4, "texts")
    assert not (tmp_path / "out").exists()
    done = say("geometry", *models, "--texts", texts, *options, "--quiet")
    assert done.code == 0, done.err
    assert "run and turned, embedding: similarity 1.00" in done.out
    assert "stage" not in done.err


def test_refuses_models_that_cannot_be_compared(models: tuple[Path, Path], tiny, tmp_path: Path, say: Say) -> None:
    run, turned = models
    other = tmp_path / "other"
    shutil.copytree(turned, other)
    table = json.loads((other / "tokenizer.json").read_text())
    vocabulary = table["model"]["vocab"]
    names = sorted(vocabulary, key=vocabulary.get)[-2:]
    vocabulary[names[0]], vocabulary[names[1]] = vocabulary[names[1]], vocabulary[names[0]]
    (other / "tokenizer.json").write_text(json.dumps(table))
    out = ["--out", tmp_path / "out", "--quiet"]
    for arguments, words in (
        ([turned, other, *out], "turned and other must share a tokenizer"),
        ([turned, *out], "there must be two checkpoints to compare, got one"),
        ([turned, turned, *out], "each model must be named once"),
        ([run, turned, *out, "--neighbours", 100_000], "than the 100000 neighbours that are sought"),
        ([run, turned, *out, "--neighbours", 1], "must be at least 2, got 1"),
        ([run, turned, "--quiet"], "give --out"),
    ):
        refused = say("geometry", *arguments)
        assert refused.code == 2, refused.out
        assert words in refused.err, refused.err
        assert len(refused.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadInput, match="`sources` must name at least one model"):
        plan_geometry([])
