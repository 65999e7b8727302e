"""Probes as monitors: TPR at a false-positive rate as in scikit-learn, thresholds frozen at another checkpoint, cross-concept AUROC."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from ontogeny.cli.monitor import _in_order
from ontogeny.dynamics.measured_checkpoints import MeasuredCheckpoint
from ontogeny.errors import BadInput
from ontogeny.jobs.monitor.monitor import (
    HeldOut,
    bootstrap_tpr,
    checkpoints_to_freeze,
    frozen_threshold_alarms,
    write_monitor_rows,
)
from ontogeny.jobs.trace.trace import trace
from ontogeny.lineage import Lineage
from ontogeny.measurements.settings import TraceSettings
from ontogeny.metrics.separability import threshold_at_fpr, tpr_at_fpr
from ontogeny.statistics.bootstrap import group_weights
from ontogeny.storage.run import Run
from ontogeny.views import empty_reason
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import rows, save_run, write

FEW = settings(max_examples=30, deadline=None)


def scores_and_labels(n: int, gap: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2 == 0
    return torch.randn(2, n, generator=generator) + gap * y, y


def held_out(y: torch.Tensor, seed: int = 0) -> HeldOut:
    groups = torch.arange(len(y))
    fold = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)) % 2
    return HeldOut("c", "last", y, groups, group_weights(groups, samples=100, seed=seed), fold, seed)


@FEW
@given(seed=st.integers(0, 10_000), n=st.integers(60, 200), rate=st.sampled_from([0.05, 0.1, 0.25]), ties=st.booleans())
def test_tpr_at_fpr_equals_scikit_learn(seed: int, n: int, rate: float, ties: bool) -> None:
    scores, y = scores_and_labels(n, 1.0, seed)
    scores = scores.round(decimals=1) if ties else scores
    fpr, tpr, _ = roc_curve(y.numpy(), scores[0].numpy(), drop_intermediate=False)
    best = tpr[fpr <= rate + 1e-9].max()
    assert float(tpr_at_fpr(scores, y, rate)[0]) == pytest.approx(best, abs=1e-6)


@FEW
@given(seed=st.integers(0, 10_000))
def test_tpr_grows_with_fpr_and_ignores_increasing_maps(seed: int) -> None:
    scores, y = scores_and_labels(200, 0.7, seed)
    caught = torch.stack([tpr_at_fpr(scores, y, rate) for rate in (0.01, 0.05, 0.2)])
    assert (caught.diff(dim=0) >= 0).all()
    assert torch.equal(tpr_at_fpr(scores.double().exp(), y, 0.05).float(), caught[1])


def test_tpr_is_nan_with_too_few_negatives() -> None:
    scores, y = scores_and_labels(198, 5.0)
    assert tpr_at_fpr(scores, y, 0.01).isnan().all()
    scores, y = scores_and_labels(200, 5.0)
    assert (tpr_at_fpr(scores, y, 0.01) > 0.9).all()
    assert tpr_at_fpr(scores, torch.ones(200, dtype=torch.bool), 0.05).isnan().all()
    scores[1, 3] = math.nan
    assert tpr_at_fpr(scores, y, 0.05).isnan().tolist() == [False, True]


def test_bootstrap_with_unit_weights_equals_point() -> None:
    scores, y = scores_and_labels(240, 1.0)
    for rate in (0.01, 0.05):
        once = bootstrap_tpr(scores, y, torch.ones(1, 240), rate)[0]
        assert torch.allclose(once, tpr_at_fpr(scores, y, rate))
    weights = group_weights(torch.arange(240), samples=200)
    one = bootstrap_tpr(scores, y, weights, 0.05)
    # The same by hand: examples repeated as often as they were drawn.
    repeated = torch.repeat_interleave(torch.arange(240), weights[0].long())
    assert torch.allclose(one[0], tpr_at_fpr(scores[:, repeated], y[repeated], 0.05))
    assert 0.01 < float(one[:, 0].std()) < 0.2


def test_frozen_threshold_holds_unless_scores_shift() -> None:
    rates = {"same": [], "moved": [], "own negatives": []}
    for seed in range(60):
        scores, y = scores_and_labels(400, 1.5, seed)
        examples = held_out(y, seed)
        rates["same"].append(float(frozen_threshold_alarms(scores[0], scores[1], examples, 0.05)[~y].mean()))
        rates["moved"].append(float(frozen_threshold_alarms(scores[0], scores[1] + 1, examples, 0.05)[~y].mean()))
        rates["own negatives"].append(float((scores[0][~y] > threshold_at_fpr(scores[0][~y], 0.05)).float().mean()))
    # Another sample of the same scores meets the rate on average, but not each time.
    assert np.mean(rates["same"]) == pytest.approx(0.05, abs=0.01)
    assert np.std(rates["same"]) > 0.01
    assert set(np.round(rates["own negatives"], 6)) == {0.05}
    assert np.mean(rates["moved"]) > 0.2


def test_frozen_checkpoints_are_last_of_stages_or_evenly_spaced() -> None:
    def visit(stage: str, step: int) -> MeasuredCheckpoint:
        return MeasuredCheckpoint(f"{stage}-{step}", stage, step, None, None, 0, step, f"{stage}{step}", {}, [])

    base, sft = [visit("base", step) for step in range(20)], [visit("sft", step) for step in range(3)]
    assert [(v.stage, v.step) for v in checkpoints_to_freeze([*base, *sft])] == [("base", 19), ("sft", 2)]
    assert [v.step for v in checkpoints_to_freeze(base)] == [0, 3, 5, 8, 11, 14, 16, 19]
    assert checkpoints_to_freeze(base[:3]) == base[:3]


# --- a run ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    from ontogeny.data.concept import Concept

    home = tmp_path_factory.mktemp("monitor")
    save_run(home / "run", {1: 0.0, 2: 8.0, 3: 8.0})
    concepts = [
        Concept.from_file(write(home / "planted.csv", rows())),
        Concept.from_file(write(home / "tint.csv", rows(characters=60, kind="classes"))),
    ]
    quick = TraceSettings(
        sites="resid", fits=("logistic", "mass_mean"), resamples=100, permutations=100, test_share=0.5
    )
    return trace(Lineage.open(home / "run"), concepts, home / "out", quick)


def test_monitor_writes_rates_and_replaces_earlier_rows(run: Run) -> None:
    before = len(run.records())
    unit = write_monitor_rows(run, (0.01, 0.1))
    found = run.records(f"unit = '{unit}'")
    assert len(run.records()) == before + len(found)
    assert set(found.concept) == {"planted"}
    small = found[found.metric.eq("tpr_at_1_fpr")]
    assert small.value.isna().all()
    assert small.n.eq(0).all()
    assert small.note.str.fullmatch(r"\d+ held-out negatives cannot show a rate of 1 %: it takes 100").all()
    caught = found[found.metric.eq("tpr_at_10_fpr") & found.method.eq("logistic")].groupby("step").value.max()
    assert caught[1] < 0.5 < 0.9 < caught[2]
    frozen = found[found.metric.eq("realised_fpr") & found.n.gt(0)]
    assert {(int(c["source_step"]), s) for c, s in zip(map(dict, frozen.coords), frozen.step, strict=True)} == {
        (a, b) for a in (1, 2, 3) for b in (1, 2, 3)
    }
    assert ((frozen.low <= frozen.value) & (frozen.value <= frozen.high)).all()
    # A second call with another rate replaces the rows.
    again = write_monitor_rows(run, (0.2,))
    assert run.records(f"unit = '{unit}'").empty
    assert set(run.records(f"unit = '{again}' and metric like 'tpr%'").metric) == {"tpr_at_20_fpr"}


def test_command_prints_rates_and_view_draws_them(run: Run, say: Say) -> None:
    code, out, _ = say("monitor", run.folder, "--fpr", "0.01", "--fpr", "0.1")
    assert code == 0
    lines = [line for line in out.splitlines() if line and not line.startswith("rows are in")]
    assert len(lines) <= 10
    assert lines[0].startswith("planted, logistic at ")
    assert "false positives of 1 %: too few negatives to measure; 10 %: " in lines[0]
    assert "a threshold for 10 % frozen at pretrain " in lines[0]
    assert lines[-1].endswith("rows in all: add --all, or --json")
    code, out, _ = say("monitor", run.folder, "--fpr", "0.01", "--fpr", "0.1", "--all")
    assert code == 0
    assert "1 % false positives: not measured" in out
    assert "caught at " in out
    assert "frozen → used" in out
    assert empty_reason(run.show("monitor")) is None
    code, out, _ = say("monitor", run.folder, "--fpr", "0.1", "--json")
    assert {row["coords"]["at"] for row in json.loads(out)} == {"0.1"}
    code, _, err = say("monitor", run.folder, "--fpr", "5")
    assert code == 2
    assert "must lie between 0 and 1, got 5" in err


def test_stages_are_in_training_order() -> None:
    """dpo comes after sft, unlike in the alphabet."""
    rows = pd.DataFrame({"stage": ["base", "dpo", "sft", "base"], "step": [1, 2, 3, 4]})
    assert list(_in_order(rows, ["base", "sft", "dpo"]).step) == [1, 4, 3, 2]


def test_rejects_run_without_binary_concepts_or_labels(run: Run, tmp_path: Path) -> None:
    empty = Run(tmp_path / "empty")
    empty.describe({**run.about, "concepts": [c for c in run.about["concepts"] if c["kind"] != "binary"]})
    with pytest.raises(BadInput, match="must hold a concept of two classes"):
        write_monitor_rows(empty)
    old = Run(tmp_path / "old")
    old.describe(run.about)
    for unit, header in run.headers().items():
        scores = {name: value for name, value in run.scores(unit).items() if name not in ("labels", "groups")}

        old.keep(unit, [], header=header, directions=run.directions(unit), scores=scores)
    with pytest.raises(BadInput, match="without their labels"):
        write_monitor_rows(old)


# --- one concept's probe on another -----------------------------------------------------------------------------------------


def test_cross_concept_auroc_of_same_opposite_and_random_labels(tmp_path: Path, say: Say) -> None:
    from ontogeny.data.concept import Concept
    from ontogeny.jobs.monitor.cross_concept import monitor_cross_concept

    save_run(tmp_path / "run", {1: 0.0, 2: 8.0})
    same = rows(characters=60)
    throws = [str(i % 4 // 2) for i in range(len(same))]
    tables = {
        "planted": same,
        "opposite": [row | {"label": str(1 - int(row["label"]))} for row in same],
        "chance": [row | {"label": throw} for row, throw in zip(same, throws, strict=True)],
    }
    concepts = [Concept.from_file(write(tmp_path / f"{name}.csv", table)) for name, table in tables.items()]
    quick = TraceSettings(sites="resid", fits=("logistic", "mass_mean"), resamples=100, permutations=100)
    run = trace(Lineage.open(tmp_path / "run"), concepts, tmp_path / "out", quick)
    found = run.records(f"unit = '{monitor_cross_concept(run, concepts)}'")
    assert len(found) == 2 * 3 * 3
    assert set(found.step) == {2}
    value = {
        (dict(c)["trained_on"], on): v
        for c, on, v, m in zip(found.coords, found.concept, found.value, found.method, strict=True)
        if m == "logistic"
    }
    site = found.loc[[dict(c)["trained_on"] == "planted" for c in found.coords], "site"].iloc[0]
    told = run.records(f"metric = 'auroc' and control is null and step = 2 and site = '{site}' and concept = 'planted'")
    assert value["planted", "planted"] == pytest.approx(told.set_index("method").value["logistic"], abs=1e-6)
    assert value["planted", "planted"] > 0.95
    assert value["planted", "opposite"] < 0.05
    assert 0.2 < value["planted", "chance"] < 0.8
    read = [f"--across={tmp_path / name}.csv" for name in ("planted", "opposite")]
    assert "logistic, planted → opposite at " in say("monitor", run.folder, *read).out
    with pytest.raises(BadInput, match="needs two concepts of two classes, got 1"):
        monitor_cross_concept(run, concepts[:1])
    write(tmp_path / "chance.csv", same[:40])
    with pytest.raises(BadInput, match="no chance of these texts and weights"):
        monitor_cross_concept(run, [*concepts[:2], Concept.from_file(tmp_path / "chance.csv")])
