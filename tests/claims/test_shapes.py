"""Shapes of claims: planted curves have the claimed effect, curves without it do not, and effects do not depend on the scale."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ontogeny.claims.claim import Claim, judge_claim, summarise_effects
from ontogeny.claims.quantity import Event, Quantity
from ontogeny.claims.shapes import (
    ElicitationGap,
    EventOrder,
    NonMonotone,
    PlateauThenDrop,
    PowerLaw,
    Relation,
    Separation,
)

STEPS = np.arange(0, 1001, 10)
SEEDS = range(6)


def curve_rows(
    metric: str,
    curve: Callable[[np.ndarray, int], np.ndarray],
    *,
    condition: str = "a",
    control: str | None = None,
    noise: float = 0.0,
) -> list[dict]:
    rows = []
    for seed in SEEDS:
        values = curve(STEPS, seed) + noise * np.random.default_rng([seed, len(metric)]).standard_normal(len(STEPS))
        rows += [
            {
                "metric": metric,
                "stage": condition,
                "control": control,
                "train_seed": seed,
                "step": s,
                "value": v,
                "coords": {},
            }
            for s, v in zip(STEPS, values, strict=True)
        ]
    return rows


def value_rows(metric: str, values: list[float], condition: str, control: str | None = None) -> list[dict]:
    return [
        {
            "metric": metric,
            "stage": condition,
            "control": control,
            "train_seed": s,
            "step": None,
            "value": v,
            "coords": {},
        }
        for s, v in enumerate(values)
    ]


def table(*rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame([row for part in rows for row in part])


def sigmoid_drop(steps: np.ndarray, seed: int) -> np.ndarray:
    return 0.01 + 1 / (1 + np.exp((steps - 600 - 20 * seed) / 15))


def steady_fall(steps: np.ndarray, seed: int) -> np.ndarray:
    return 1.01 - steps / 1000


LOSS = Quantity("loss", "a")


def test_plateau_then_drop_separates_a_sudden_drop_from_steady_falls() -> None:
    shape = PlateauThenDrop(LOSS)
    sudden = shape.effects(table(curve_rows("loss", sigmoid_drop)))
    steady = shape.effects(table(curve_rows("loss", steady_fall)))
    exponential = shape.effects(table(curve_rows("loss", lambda s, _: np.exp(-s / 100))))
    assert all(effect > 3 for effect in sudden.values())
    assert all(effect == pytest.approx(1 / 8, abs=0.03) for effect in steady.values())
    assert all(effect < 0.1 for effect in exponential.values())


def test_small_drop_is_no_drop() -> None:
    small = curve_rows("loss", lambda s, seed: 1 + 0.2 * sigmoid_drop(s, seed))
    assert set(PlateauThenDrop(LOSS).effects(table(small)).values()) == {0.0}


@given(st.floats(0.1, 100), st.floats(0.1, 10))
def test_plateau_does_not_depend_on_units(scale: float, stretch: float) -> None:
    rows = table(curve_rows("loss", sigmoid_drop))
    other = rows.assign(value=rows["value"] * scale, step=rows["step"] * stretch)
    before, after = PlateauThenDrop(LOSS).effects(rows), PlateauThenDrop(LOSS).effects(other)
    assert before == pytest.approx(after, rel=1e-6)


def test_non_monotone_measures_the_largest_rise() -> None:
    bump = curve_rows("loss", lambda s, _: np.exp(-s / 300) + 0.2 * np.exp(-(((s - 500) / 60) ** 2)))
    effects = NonMonotone(LOSS).effects(table(bump))
    values = np.exp(-STEPS / 300) + 0.2 * np.exp(-(((STEPS - 500) / 60) ** 2))
    expected = max(values[j] - values[i] for i in range(len(values)) for j in range(i, len(values))) / values[0]
    assert all(effect == pytest.approx(expected) for effect in effects.values())
    assert set(NonMonotone(LOSS).effects(table(curve_rows("loss", steady_fall))).values()) == {0.0}
    rising = curve_rows("loss", lambda s, _: 1 + s / 1000 - 0.3 * (s > 700))
    assert min(NonMonotone(LOSS, against="fall").effects(table(rising)).values()) > 0.2


def test_event_order_counts_doublings_and_censored_events_are_late() -> None:
    rows = table(
        curve_rows("early", lambda s, _: (s >= 100).astype(float)),
        curve_rows("late", lambda s, _: (s >= 401).astype(float)),
        curve_rows("never", lambda s, _: 0.0 * s),
    )
    early, late, never = (Event(Quantity(name, "a"), 0.5) for name in ("early", "late", "never"))
    assert EventOrder(early, late).effects(rows)[0] == pytest.approx(math.log2(411 / 101))
    assert EventOrder(early, never).effects(rows)[0] == pytest.approx(math.log2(1001 / 101))
    assert math.isnan(EventOrder(never, never).effects(rows)[0])
    assert EventOrder(early, late).effects(rows) == {s: -e for s, e in EventOrder(late, early).effects(rows).items()}


def test_event_must_hold() -> None:
    values = np.array([0, 1, 0, 1, 1, 1, 1.0])
    curve = (np.arange(7.0), values)
    assert Event(LOSS, 0.5).step(curve) == 1
    assert Event(LOSS, 0.5, hold=3).step(curve) == 3
    assert Event(LOSS, 0.5, direction="fall").step(curve) == 0
    assert Event(LOSS, 0.5, relative=True).step((curve[0], 1 - values)) == 1


@pytest.mark.parametrize("exponent", [0.5, 1.0, -1.0])
def test_power_law_recovers_the_exponent(exponent: float) -> None:
    sizes = {"n1": 1.0, "n2": 2.0, "n4": 4.0}
    fine = np.arange(0, 2000)

    def row(condition: str, size: float, seed: int, step: int) -> dict:
        reached = float(step >= 300 * size**exponent)
        place = {"metric": "score", "stage": condition, "control": None, "coords": {}}
        return {**place, "train_seed": seed, "step": step, "value": reached}

    rows = [row(name, size, seed, s) for name, size in sizes.items() for seed in range(3) for s in fine]
    effects = PowerLaw(Event(Quantity("score"), 0.5), sizes).effects(pd.DataFrame(rows))
    assert all(effect == pytest.approx(exponent, abs=0.01) for effect in effects.values())


def test_relation_is_a_rank_correlation_over_conditions() -> None:
    names = ("c1", "c2", "c3", "c4")
    rows = table(
        *(value_rows("x", [float(i)] * 3, name) for i, name in enumerate(names)),
        *(value_rows("y", [float(i**3)] * 3, name) for i, name in enumerate(names)),
        *(value_rows("flat", [1.0] * 3, name) for name in names),
    )
    assert set(Relation(Quantity("x"), Quantity("y"), names).effects(rows).values()) == {1.0}
    assert set(Relation(Quantity("x"), Quantity("y"), names, sign=-1).effects(rows).values()) == {-1.0}
    assert set(Relation(Quantity("x"), Quantity("flat"), names).effects(rows).values()) == {0.0}


def test_separation_and_elicitation_gap() -> None:
    rows = table(
        value_rows("v", [4.0, 8.0], "high"),
        value_rows("v", [1.0, 2.0], "low"),
        curve_rows("shown", lambda s, _: (s >= 500).astype(float)),
        curve_rows("elicited", lambda s, _: (s >= 250).astype(float)),
    )
    high, low = Quantity("v", "high"), Quantity("v", "low")
    assert Separation(high, low).effects(rows) == {0: 3.0, 1: 6.0}
    assert Separation(high, low, ratio=True).effects(rows) == {0: 2.0, 1: 2.0}
    gap = ElicitationGap(Quantity("elicited", "a"), Quantity("shown", "a")).effects(rows)
    assert gap[0] == pytest.approx(25 / 101)


def claim(shape: object) -> Claim:
    return Claim("c", "A claim.", "a paper", "a number", shape, "null")  # type: ignore[arg-type]


def test_claim_holds_only_if_the_null_run_does_not_show_it() -> None:
    real = curve_rows("loss", sigmoid_drop)
    null = curve_rows("loss", steady_fall, control="null")
    same = curve_rows("loss", sigmoid_drop, control="null")
    shape = PlateauThenDrop(LOSS)
    assert judge_claim(claim(shape), table(real, null)).verdict == "held"
    assert judge_claim(claim(shape), table(real, same)).verdict == "undecided"
    assert "null run" in judge_claim(claim(shape), table(real)).note
    assert judge_claim(claim(shape), table(curve_rows("loss", steady_fall), null)).verdict == "did not hold"
    judged = judge_claim(claim(shape), table(real, null))
    assert "6 of 6 seeds" in judged.sentence
    assert judged.claim.metrics == {"loss"}


def test_two_seeds_decide_nothing() -> None:
    rows = table(curve_rows("loss", sigmoid_drop), curve_rows("loss", steady_fall, control="null"))
    judged = judge_claim(claim(PlateauThenDrop(LOSS)), rows[rows["train_seed"].lt(2)])
    assert judged.verdict == "undecided"
    assert "3 seeds" in judged.note


def test_absent_quantity_is_undecided_with_its_reason() -> None:
    judged = judge_claim(claim(PlateauThenDrop(LOSS)), table(curve_rows("other", steady_fall)))
    assert judged.verdict == "undecided"
    assert "no seed has this quantity" in judged.sentence


def test_claims_hold_at_the_nominal_rate_in_noise() -> None:
    """A two-sided 95 % interval is above zero in 2.5 % of null experiments."""
    rng = np.random.default_rng(0)
    held = [summarise_effects(dict(enumerate(rng.standard_normal(5))), 0.0).low > 0 for _ in range(4000)]
    assert 0.017 < np.mean(held) < 0.034
