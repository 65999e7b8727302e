"""Pace of measurements on simulated clocks: the budget holds, early steps are dense, and dear measurements are rarer."""

from collections.abc import Callable

import pytest

from ontogeny.jobs.watch.cost_clock import CostClock
from ontogeny.jobs.watch.pace import MeasurementPace


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def training(
    budget: float,
    steps: int,
    *,
    cost: float,
    threads: float = 1.0,
    preparation: float = 0.0,
    after_effects: tuple[float, ...] = (),
    known: bool = True,
    first: int = 0,
    seconds: Callable[[int], float] = lambda step: 1.0,
) -> MeasurementPace:
    """A simulated training; a measurement keeps `threads` processors busy, a step one, and relating costs as much as two measurements."""
    wall, processor = Clock(), Clock()

    def run(seconds: float, threads: float = 1.0) -> None:
        wall.now += seconds
        processor.now += seconds * threads

    pace = MeasurementPace(
        budget, steps if known else None, (CostClock("wall", wall), CostClock("processor", processor))
    )
    with pace.preparing():
        run(preparation)
    after: list[float] = []
    for step in range(first, steps + 1):
        if step > first:
            run(seconds(step) + (after.pop(0) if after else 0.0))
        if pace.due(step) or step == steps:
            after = [*after_effects]
            with pace.visiting(step):
                run(cost, threads)
    with pace.relating():
        run(2 * cost, threads)
    return pace


@pytest.mark.parametrize("budget", [0.01, 0.1])
@pytest.mark.parametrize("cost", [0.2, 2.0])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("more", [{}, {"threads": 4.0}, {"after_effects": (0.3, 0.2)}, {"preparation": 20.0}])
def test_budget_holds_on_both_clocks(budget: float, cost: float, known: bool, more: dict[str, float]) -> None:
    pace = training(budget, 5_000, cost=cost, known=known, **more)
    assert pace.share <= budget
    assert pace.measured[0] == 0
    assert len(pace.measured) >= (2 if "threads" in more else 3)


def test_first_steps_are_dense_where_the_length_is_known() -> None:
    assert training(0.03, 10_000, cost=1.0).measured[:8] == [0, 1, 2, 4, 8, 16, 32, 64]
    assert training(0.03, 10_000, cost=1.0, first=500).measured[:6] == [500, 501, 502, 504, 508, 516]
    pace = MeasurementPace(0.5, 10)  # a training that goes on after its last step
    for step in (10, 11, 12):
        if pace.due(step):
            with pace.visiting(step):
                pass
    assert pace.measured[0] == 10


def test_preparation_is_spread_over_a_training_of_known_length() -> None:
    pace = training(0.03, 2_000, cost=1.0, preparation=30.0)
    assert pace.share <= 0.03
    # The budget has room for 20 of them; without that spread the first would come after step 1,000.
    assert 10 < len(pace.measured) < 25
    assert sum(step <= 1_000 for step in pace.measured) > 6


def test_steps_that_grow_longer_or_shorter_keep_the_budget() -> None:
    for seconds in (lambda step: 0.5 + step / 2_000, lambda step: 3.0 if step < 200 else 0.5):
        assert training(0.03, 5_000, cost=1.0, seconds=seconds).share <= 0.03


def test_the_steps_after_a_measurement_are_compared_with_the_steps_around_them() -> None:
    pace = training(0.05, 2_000, cost=1.0, after_effects=(0.1, 0.3))
    (wall, _), visits = pace.clocks, len(pace.measured)
    assert wall.after_effects == pytest.approx(0.4 * visits)
    # Evaluations now and then are no cost of the measurements.
    pace = training(0.05, 2_000, cost=1.0, seconds=lambda step: 30.0 if step % 40 == 0 else 1.0)
    assert pace.clocks[0].after_effects == 0


def test_a_long_training_has_some_hundred_measurements() -> None:
    assert 100 < len(training(0.1, 10_000, cost=0.01).measured) < 260
    assert 100 < len(training(0.1, 10_000, cost=0.01, known=False).measured) < 400


def test_a_smaller_budget_and_a_dearer_measurement_lengthen_the_interval() -> None:
    def gap(budget: float, cost: float) -> float:
        measured = training(budget, 5_000, cost=cost).measured
        return measured[-2] - measured[-3]

    assert gap(0.01, 1.0) == pytest.approx(3 * gap(0.03, 1.0), rel=0.3)
    assert gap(0.03, 4.0) == pytest.approx(4 * gap(0.03, 1.0), rel=0.3)


def test_cost_is_said() -> None:
    assert training(0.03, 1_000, cost=1.0).sentence().endswith("of its processor.")
    said = training(0.03, 20, cost=1.0).sentence()
    assert (
        "more than the budget of 3.0%, since the costs that come once, the first step and the last one alone add 2"
        in said
    )
    assert MeasurementPace(0.03).sentence() == "no measurement was made."
