"""Flip rates equal a count by hand; in a trace they are near 0 if the perturbation keeps the concept, near 0.5 if it removes it."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.design import make_design
from ontogeny.measurements.robustness import robustness_rows
from ontogeny.measurements.settings import TraceSettings
from ontogeny.sites import Site
from ontogeny.statistics.paired_flips import flip_rates, pair_indices
from ontogeny.storage.run import Run
from tests.helpers.planted_lineages import WORDS, rows, save_run, write

QUICK = TraceSettings(
    sites="resid", fits=("logistic", "mass_mean", "pca"), resamples=100, permutations=100, untrained=False
)


def test_pair_indices_are_groups_of_two_in_order() -> None:
    assert pair_indices(torch.tensor([3, 1, 3, 1, 2, 0, 0, 0])).tolist() == [[0, 2], [1, 3]]
    assert pair_indices(torch.tensor([0, 1, 2])).shape == (0, 2)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 40))
def test_flip_rates_equal_a_loop(seed: int, n: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    groups = torch.arange(n).repeat(2)[torch.randperm(2 * n, generator=draw)]
    y = groups % 2 == 0
    predicted = torch.rand(3, 2 * n, generator=draw) > 0.4
    found = flip_rates(predicted, y, pair_indices(groups), samples=100, seed=0)
    for site in range(3):
        by_hand = [[bool(p) for p, g in zip(predicted[site], groups, strict=True) if g == k] for k in range(n)]
        rate = sum(a != b for a, b in by_hand) / n
        drop = sum((a == (k % 2 == 0)) - (b == (k % 2 == 0)) for k, (a, b) in enumerate(by_hand)) / n
        assert float(found.rate[site]) == pytest.approx(rate, abs=1e-6)
        assert float(found.drop[site]) == pytest.approx(drop, abs=1e-6)
    assert ((found.rate_interval.low <= found.rate) & (found.rate <= found.rate_interval.high)).all()
    assert ((found.drop_interval.low <= found.drop) & (found.drop <= found.drop_interval.high)).all()


def test_probe_without_a_direction_has_no_flip_rate() -> None:
    """Of scores that are not numbers every prediction is the same, so none would flip."""
    examples = tuple(Example(f"{'sun' if i % 4 < 2 else 'moon'} {i}", i % 4 < 2, f"g{i // 2}") for i in range(80))
    design = make_design(Concept("c", examples, twins=True), TraceSettings(sites="resid"))
    scores = torch.randn(2, len(design.split.test), 1, generator=torch.Generator().manual_seed(0))
    scores[0] = math.nan
    sites = [Site("resid", 0), Site("resid", 1)]
    found = robustness_rows(design, design.row_context(0), "mass_mean", scores, sites)
    assert [math.isnan(row.value) for row in found] == [math.isnan(row.low) for row in found] == [True, False] * 2
    assert found[0].note == "degenerate scores"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two perturbations: other words before the telling character, and a question mark in place of it."""
    home = tmp_path_factory.mktemp("twins")
    save_run(home / "run", {1: 0.0, 2: 10.0})
    table = rows()
    kept = replace(Concept.from_file(write(home / "kept.csv", table)), twins=True)
    removed = [
        row if i % 2 == 0 else row | {"text": f"{WORDS[i // 2 % 4]} {WORDS[i // 8 % 4]} ."}
        for i, row in enumerate(table)
    ]
    lost = replace(Concept.from_file(write(home / "lost.csv", removed)), twins=True)
    plain = Concept.from_file(home / "kept.csv", name="plain")
    return trace(Lineage.open(home / "run"), [kept, lost, plain], home / "out", QUICK)


def test_trace_writes_flip_rate_and_drop(run: Run) -> None:
    found = run.records("metric in ('flip_rate', 'perturbed_drop')")
    assert set(found.concept) == {"kept", "lost"}  # not of groups that are no twins
    assert set(found.method) == {"logistic", "mass_mean"}  # a spectrum reads nothing
    assert set(found.site) == {"resid.0", "resid.1", "resid.2"}
    assert ((found.low <= found.value) & (found.value <= found.high)).all()
    at = found[found.step.eq(2) & found.site.eq("resid.0")].set_index(["concept", "method", "metric"]).value
    for method in ("logistic", "mass_mean"):
        assert at["kept", method, "flip_rate"] < 0.1
        assert abs(at["kept", method, "perturbed_drop"]) < 0.1
        assert 0.2 < at["lost", method, "flip_rate"] < 0.8
        assert at["lost", method, "perturbed_drop"] > 0.2
    test_groups = run.scores(found[found.concept.eq("kept")].unit.iloc[0])["groups"]
    assert set(found[found.concept.eq("kept")].n) == {len(test_groups.unique())}


def test_twins_change_the_hash_of_a_concept(run: Run) -> None:
    hashes = {concept["name"]: concept["hash"] for concept in run.about["concepts"]}
    assert hashes["kept"] != hashes["plain"]


def test_too_few_twins_give_nan_with_reason(tmp_path: Path) -> None:
    save_run(tmp_path / "run", {1: 8.0})
    single = [row | {"group": f"g{i}"} for i, row in enumerate(rows(characters=20))]
    concept = replace(Concept.from_file(write(tmp_path / "single.csv", single)), twins=True)
    found = trace(Lineage.open(tmp_path / "run"), [concept], tmp_path / "out", QUICK).records("metric = 'flip_rate'")
    assert found.value.isna().all()
    assert found.n.eq(0).all()
    assert found.note.str.startswith("0 held-out groups of two twins").all()
