"""Selectors on step grids like Pythia's and on generated ones, and errors for missing steps."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.errors import BadInput
from ontogeny.lineage import Checkpoint, Lineage, Stage

PYTHIA = [0, *(2**i for i in range(10)), *range(1000, 144_000, 1000)]


def lineage(steps: list[int], name: str = "EleutherAI/pythia-160m") -> Lineage:
    return Lineage(name, (Stage("pretrain", tuple(Checkpoint(name, f"step{s}", step=s) for s in steps)),))


def staged() -> Lineage:
    base = lineage([0, 1000, 2000]).stages[0]
    sft = Stage("sft", tuple(Checkpoint("sft", f"checkpoint-{s}", "sft", s) for s in (10, 20, 30)), "pretrain")
    dpo = Stage("dpo", (Checkpoint("dpo", "main", "dpo"),), "sft")
    return Lineage("run", (base, sft, dpo))


def steps(one: Lineage) -> list[int | None]:
    return [checkpoint.step for checkpoint in one.checkpoints]


def test_plain_selectors() -> None:
    run = lineage(PYTHIA)
    assert len(steps(run)) == 154
    assert steps(run.select("all")) == PYTHIA
    assert steps(run.select("last")) == [143_000]
    assert steps(run.select("first")) == [0]
    assert steps(run.select("0,1000,143000")) == [0, 1000, 143_000]
    assert steps(run.select("143000, 0")) == [0, 143_000]
    assert steps(run.select("step1000")) == [1000]
    assert steps(run.select("1000-5000")) == [1000, 2000, 3000, 4000, 5000]
    assert steps(run.select("0,1000-2000,last")) == [0, 1000, 2000, 143_000]
    assert steps(run.select("every:50")) == [0, 40_000, 90_000, 140_000, 143_000]


def test_log_selects_powers_of_two_and_both_ends() -> None:
    kept = steps(lineage(PYTHIA).select("log"))
    assert kept == [
        0,
        1,
        2,
        4,
        8,
        16,
        32,
        64,
        128,
        256,
        512,
        1000,
        2000,
        4000,
        8000,
        16000,
        33000,
        66000,
        131000,
        143000,
    ]


@pytest.mark.parametrize("count", [2, 3, 8, 20])
def test_log_n_is_that_many_and_even(count: int) -> None:
    kept = steps(lineage(PYTHIA).select(f"log:{count}"))
    assert len(kept) == count
    assert (kept[0], kept[-1]) == (0, 143_000)
    gaps = [math.log(b / a) for a, b in itertools.pairwise(kept) if a and b]
    assert not gaps or max(gaps) < 2.5 * math.log(143_000) / (count - 2)


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.integers(0, 10**6), min_size=1, max_size=60),
    st.sampled_from(["all", "log", "log:2", "log:7", "every:1", "every:3", "last", "first", "first,last"]),
)
def test_selection_is_an_ordered_subset_with_its_ends(numbers: set[int], selector: str) -> None:
    grid = sorted(numbers)
    kept = steps(lineage(grid).select(selector))
    assert kept == sorted(set(kept))
    assert set(kept) <= numbers
    if selector not in ("last", "first"):
        assert (kept[0], kept[-1]) == (grid[0], grid[-1])
    if selector.startswith("log:"):
        assert len(kept) == min(int(selector[4:]), len(grid))
    # Selecting again changes nothing for the selectors that name ends.
    if selector in ("all", "log:2", "last", "first", "every:1"):
        assert steps(lineage(kept).select(selector)) == kept


def test_missing_step_names_the_nearest() -> None:
    with pytest.raises(BadInput) as caught:
        lineage(PYTHIA).select("1500")
    assert str(caught.value) == (
        "no checkpoint 'step1500' in EleutherAI/pythia-160m, which has 154: the nearest are step1000 and step2000, "
        "so set `steps` to 1000,2000 or log."
    )
    with pytest.raises(BadInput, match="the nearest is step143000"):
        lineage(PYTHIA).select("0,999999")
    with pytest.raises(BadInput, match=r"no checkpoint 'step1500' .* step1000 and step2000"):
        lineage(PYTHIA).select("step1500")
    with pytest.raises(BadInput, match=r"from 600 to 900 .* from 0 to 143000"):
        lineage(PYTHIA).select("600-900")


@pytest.mark.parametrize("text", ["", ",", "some", "every:0", "log:1", "log:x", "lgo", "5000-", "-5"])
def test_rejects_invalid_selectors(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        lineage(PYTHIA).select(text)
    assert "\n" not in str(caught.value)


def test_step_must_be_in_one_stage_only() -> None:
    run = staged()
    assert steps(run.select("0,20")) == [0, 20, None]
    assert steps(run.select("last")) == [2000, 30, None]
    # A stage that becomes empty goes, and its child is given to its grandparent.
    only = run.select("0")
    assert [(s.name, s.parent) for s in only.stages] == [("pretrain", None), ("dpo", "pretrain")]
    with pytest.raises(BadInput, match=r"no checkpoint 'step15' in run \(stage pretrain\)"):
        run.select("0,15")


def test_selects_by_stage() -> None:
    run = staged()
    assert steps(run.select("pretrain=0,last")) == [0, 2000]
    assert steps(run.select("pretrain=last; sft=10")) == [2000, 10]
    assert steps(run.select("sft=10; sft=last")) == [10, 30]
    with pytest.raises(BadInput, match=r"did you mean '?sft"):
        run.select("stf=last")
    with pytest.raises(BadInput, match="the stage sft of run"):
        run.select("sft=15")
    with pytest.raises(BadInput, match="have no steps"):
        run.select("dpo=15")
    with pytest.raises(BadInput, match="'last' names no stage: write it as STAGE=last"):
        run.select("sft=10;last")


@pytest.mark.parametrize("names", [["pretrain"], ["sft"], ["dpo"], ["pretrain", "dpo"], ["sft", "dpo"]])
def test_a_stage_that_is_not_named_is_not_visited(names: list[str]) -> None:
    whole = staged()
    run = whole.select(";".join(f"{name}=last" for name in names))
    assert [stage.name for stage in run.stages] == names
    assert run.checkpoints == tuple(whole.stage(name).checkpoints[-1] for name in names)
    assert run.parents == whole.parents == {"pretrain": None, "sft": "pretrain", "dpo": "sft"}
    assert run.select("all").parents == whole.parents


def test_ancestry() -> None:
    assert [stage.name for stage in staged().ancestry("dpo")] == ["pretrain", "sft", "dpo"]
    with pytest.raises(BadInput, match=r"did you mean '?dpo"):
        staged().stage("dop")


def test_models_without_a_step_have_no_place_on_the_axis() -> None:
    numbered = [Checkpoint("run", f"step{step}", step=step) for step in (100, 200)]
    named = [Checkpoint("run", name) for name in ("average", "best", "ema", "final")]
    run = Lineage("run", (Stage("pretrain", (*numbered, *named)),))
    assert [c.name for c in run.select("log:5").checkpoints] == ["step100", "step200", "final"]
