"""Activation cache: another seed or probe needs no model, and its numbers equal those of a run without the cache."""

from dataclasses import replace
from pathlib import Path

import pytest

from ontogeny.activations.cache import ActivationCache
from ontogeny.data.concept import Concept
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from tests.helpers.planted_lineages import SPOKEN, rows, save_run, write

QUICK = TraceSettings(sites="resid,head", resamples=100, permutations=100)
LIGHT = replace(QUICK, sites="resid", fits=("logistic",))
FEW_STEPS = {1: 0.0, 2: 4.0, 3: 8.0}
OTHER = replace(QUICK, seed=3, fits=("logistic", "mass_mean"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_run(home / "few", FEW_STEPS, answers=SPOKEN)
    write(home / "one.csv", rows(answers=True))
    return home


@pytest.fixture
def concept(home: Path) -> Concept:
    return Concept.from_file(home / "one.csv")


def visits(run):
    return [entry for entry in run.ledger() if "forwards" in entry]


def values(run):
    table = run.records().drop(columns=["unit"])
    return table.sort_values(list(table.columns[:15])).reset_index(drop=True).astype(str)


def test_other_seed_needs_no_model(home, concept, tmp_path):
    cache = ActivationCache(tmp_path / "cache", 10**9)
    first = trace(Lineage.open(home / "few"), [concept], tmp_path / "first", QUICK, cache=cache)
    assert sum(entry["models_built"] for entry in visits(first)) == 2  # one for the lineage, one for the floor
    again = trace(Lineage.open(home / "few"), [concept], tmp_path / "again", OTHER, cache=cache)
    built = [(entry["models_built"], entry["forwards"], entry["from_cache"]) for entry in visits(again)]
    assert built[1:] == [(0, 0, 1)] * len(FEW_STEPS)
    assert built[0] == (1, visits(first)[0]["forwards"], 0)  # the floor is drawn anew with the seed
    plain = trace(Lineage.open(home / "few"), [concept], tmp_path / "plain", OTHER)
    assert values(again).equals(values(plain))


def test_other_texts_weights_or_sites_are_read_again(home, concept, tmp_path):
    cache = ActivationCache(tmp_path / "cache", 10**9)
    few = Lineage.open(home / "few")
    trace(few, [concept], tmp_path / "first", LIGHT, cache=cache)
    last = concept.examples[-1]
    changed = replace(concept, examples=(*concept.examples[:-1], replace(last, text=last.text + "!")))
    for name, concepts, settings in (
        ("texts", [changed], LIGHT),
        ("sites", [concept], replace(LIGHT, sites="resid.1")),
        ("dtype", [concept], replace(LIGHT, dtype="bfloat16")),
    ):
        run = trace(few, concepts, tmp_path / name, settings, cache=cache)
        assert all(entry["from_cache"] == 0 for entry in visits(run)), name
    save_run(tmp_path / "other", {step: push + 0.5 for step, push in FEW_STEPS.items()}, answers=SPOKEN)
    run = trace(Lineage.open(tmp_path / "other"), [concept], tmp_path / "weights", LIGHT, cache=cache)
    assert all(entry["from_cache"] == 0 for entry in visits(run)[1:])


def test_labels_are_not_part_of_an_entry(home, concept, tmp_path):
    cache = ActivationCache(tmp_path / "cache", 10**9)
    few = Lineage.open(home / "few")
    trace(few, [concept], tmp_path / "first", LIGHT, cache=cache)
    turned = replace(concept, name="turned", examples=tuple(replace(e, target=not e.target) for e in concept.examples))
    run = trace(few, [turned], tmp_path / "turned", LIGHT, cache=cache)
    assert all(entry["from_cache"] == 1 for entry in visits(run))


def test_cache_keeps_its_size_and_damaged_entries_are_read_again(home, concept, tmp_path):
    few = Lineage.open(home / "few")
    large = ActivationCache(tmp_path / "cache", 10**9)
    trace(few, [concept], tmp_path / "first", LIGHT, cache=large)
    entries = sorted((tmp_path / "cache").glob("*.safetensors"))
    one = entries[0].stat().st_size
    assert len(entries) == len(FEW_STEPS) + 1
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:200])
    run = trace(few, [concept], tmp_path / "second", LIGHT, cache=large)
    assert all(entry["from_cache"] == 0 for entry in visits(run))
    small = ActivationCache(tmp_path / "cache", int(1.5 * one))
    small.trim()
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1
    trace(few, [concept], tmp_path / "third", replace(LIGHT, sites="mlp"), cache=small)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= small.max_bytes
