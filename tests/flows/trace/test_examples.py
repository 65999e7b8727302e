"""Single examples in a run: their held-out scores, their texts unless the user leaves them out, and their places in a probe's plane."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import ontogeny as on
from ontogeny.data.concept import Concept
from ontogeny.dynamics.example_scores import choose_examples
from ontogeny.errors import BadInput
from ontogeny.jobs.trace.shards import Shard
from ontogeny.jobs.trace.trace import trace
from ontogeny.measurements.design import make_design
from ontogeny.measurements.settings import TraceSettings
from ontogeny.storage.run import Run
from tests.helpers.planted_lineages import rows, write

SETTINGS = TraceSettings(sites="resid", resamples=100, permutations=100, untrained=False)
SECRET = "one may hear"
"""In every fourth text, and in no name of a file."""


@pytest.fixture(scope="module")
def kinds(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A concept of each kind of target at three checkpoints."""
    folder = tmp_path_factory.mktemp("kinds")
    files = [write(folder / f"{kind}.csv", rows(characters=40, kind=kind)) for kind in ("binary", "classes", "number")]
    return on.trace(home / "few", files, folder / "run", SETTINGS)


def coords(run: Run, metric: str, concept: str, key: str) -> list[str]:
    return [row[key] for row in run.records(metric=metric, concept=concept).coords.map(dict)]


@pytest.mark.parametrize("kind", ["binary", "classes", "number"])
def test_rows_of_examples_are_the_scores_of_the_best_site(kinds: Run, kind: str) -> None:
    found = kinds.records(metric="example_score", concept=kind)
    best = kinds.records(metric="best_site", concept=kind).iloc[0]
    assert set(found.site) == {best.site}
    assert set(found.method) == {best.method}
    for unit, header in kinds.headers().items():
        if header["concept"] != kind:
            continue
        at = header["sites"]["resid"].index(best.site)
        scores = kinds.scores(unit)[f"{best.method}/resid"][at].double().numpy()
        y = kinds.scores(unit)["labels"].numpy()
        here = found[found.step.eq(header["step"])]
        ids = [int(dict(c)["example"]) for c in here.coords]
        assert sorted(ids) == list(range(80))  # fewer than 96: all of them
        if kind == "binary":
            expected = scores[ids, 0]
        elif kind == "number":
            expected = scores[ids, 0] - y[ids]
        else:
            own = scores[np.arange(80), y.astype(int)]
            others = np.where(np.arange(3) == y.astype(int)[:, None], -np.inf, scores).max(1)
            expected = (own - others)[ids]
        np.testing.assert_allclose(here.value, expected, rtol=1e-5, atol=1e-6)


def test_share_of_wrong_checkpoints_agrees_with_the_scores(kinds: Run) -> None:
    scores = kinds.records(metric="example_score", concept="binary")
    coords = scores.coords.map(dict)
    wrong = (scores.value > 0) != coords.map(lambda c: c["target"] == "1")
    shares = wrong.groupby(coords.map(lambda c: c["example"])).mean()
    listed = kinds.records(metric="example_wrong", concept="binary")
    assert {dict(c)["example"]: value for c, value in zip(listed.coords, listed.value, strict=True)} == pytest.approx(
        shares.to_dict()
    )
    last = wrong[scores.step.eq(3)]
    assert kinds.records(metric="example_errors", concept="binary").value.item() == last.sum()
    ranked = [dict(c) for c in listed.coords if "rank" in dict(c)]
    assert len(ranked) == min(24, last.sum())
    assert not len(kinds.records(metric="example_errors", concept="number"))


def test_of_many_examples_every_class_and_the_worst_ones_have_rows() -> None:
    y = torch.arange(5000) % 10 == 0
    margin = torch.linspace(-1, 9, 5000)[torch.randperm(5000, generator=torch.Generator().manual_seed(0))]
    chosen, wrong = choose_examples(margin, y)
    assert margin[wrong].tolist() == sorted(margin.tolist())[:24]
    assert set(wrong.tolist()) <= set(chosen.tolist())
    assert 96 <= len(chosen) <= 120
    assert 48 <= int(y[chosen].sum()) <= 72
    assert len(choose_examples(margin.abs(), y)[1]) == 0


def test_private_texts_stay_out_of_a_run_and_leave_one_that_has_them(kinds: Run, home: Path, tmp_path: Path) -> None:
    concept = Concept.from_file(kinds.folder.parent / "classes.csv")
    assert any(SECRET in text for text in coords(kinds, "example_wrong", "classes", "text"))
    private = replace(SETTINGS, texts=False)
    for folder in (tmp_path / "new", shutil.copytree(kinds.folder, tmp_path / "old")):
        done = len(Run(folder).ledger()) if folder.name == "old" else 0
        run = on.trace(home / "few", [concept], folder, private)
        assert all("text" not in dict(c) for c in run.records(metric="example_wrong", concept="classes").coords)
        assert len(run.ledger()) == (done or 3)  # no checkpoint of the old run is read again
        assert "(the run keeps no texts)" in run.show("probe_errors", concepts=["classes"]).to_json()
    bytes_of = [path.read_bytes() for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in content for content in bytes_of)


def test_plane_shows_held_out_texts_on_the_basis_of_the_last_checkpoint(home: Path, kinds: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(kinds.folder, tmp_path / "run")
    concept = Concept.from_file(kinds.folder.parent / "binary.csv")
    units = set(kinds.headers())
    settings = replace(SETTINGS, planes=2)
    run = on.trace(home / "few", [concept], folder, settings)
    assert set(run.headers()) == units
    across, up = (run.records(metric=metric) for metric in ("plane_probe", "plane_orthogonal"))
    assert set(across.step) == {1, 3}
    design = make_design(concept, settings).one_fold()
    assert sorted({int(dict(c)["example"]) for c in across.coords}) == design.split.test.tolist()
    # The axes by another way: capture, and the probe of the first fold as the run keeps it.
    site = across.site.iloc[0]
    header = next((u, h) for u, h in run.headers().items() if h["step"] == 3 and h["concept"] == "binary")
    at = header[1]["sites"]["resid"].index(site)
    kept = run.directions(header[0])
    w, bias = kept["mass_mean/resid/folds/direction"][at][:, 0], float(kept["mass_mean/resid/folds/bias"][at][0])
    for step in (1, 3):
        x = on.capture(on.load_model(home / "few" / f"checkpoint-{step}"), concept, sites=site)[site]
        here = across[across.step.eq(step)]
        ids = [int(dict(c)["example"]) for c in here.coords]
        np.testing.assert_allclose(here.value, ((x[ids] @ w + bias) / w.norm()).numpy(), rtol=1e-4, atol=1e-5)
        auroc = run.records(metric="plane_auroc", step=step).value.item()
        assert auroc == pytest.approx(roc_auc_score(concept.labels()[ids].numpy(), here.value))
    inside = x[design.split.train].double().numpy()
    unit = (w / w.norm()).double().numpy()
    rest = inside - inside.mean(0) - np.outer((inside - inside.mean(0)) @ unit, unit)
    axis = np.linalg.eigh(rest.T @ rest)[1][:, -1]
    expected = (x[ids].double().numpy() - inside.mean(0)) @ axis
    found = up[up.step.eq(3)].value.to_numpy()
    assert abs(np.corrcoef(found, expected)[0, 1]) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-4, atol=1e-6)
    # A second call reads nothing.
    lines = len(run.ledger())
    assert len(trace(home / "few", [concept], folder, settings).ledger()) == lines
    with pytest.raises(BadInput, match="`planes` must not be set for a shard"):
        trace(home / "few", [concept], tmp_path / "shards", settings, shard=Shard.parse("0/2"))
