"""Pace of measurements on a simulated clock: the budget holds, early steps are dense, and dear measurements are rarer."""

import pytest

from ontogeny.jobs.watch.pace import MeasurementPace


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def measured_steps(
    budget: float, steps: int, *, cost: float, step_seconds: float = 1.0, known: bool = True
) -> MeasurementPace:
    clock = Clock()
    pace = MeasurementPace(budget, steps if known else None, clock)
    for step in range(steps + 1):
        clock.now += step_seconds if step else 0.0
        if pace.due(step):
            clock.now += cost
            pace.add(step, cost)
    return pace


@pytest.mark.parametrize("budget", [0.01, 0.03, 0.1])
@pytest.mark.parametrize("cost", [0.2, 2.0, 10.0])
@pytest.mark.parametrize("known", [True, False])
def test_budget_holds_over_a_long_training(budget: float, cost: float, known: bool) -> None:
    pace = measured_steps(budget, 20_000, cost=cost, known=known)
    assert pace.share <= budget
    assert pace.measured[0] == 0
    assert len(pace.measured) > 5


def test_first_steps_are_dense_where_the_length_is_known() -> None:
    pace = measured_steps(0.03, 20_000, cost=2.0)
    assert pace.measured[:8] == [0, 1, 2, 4, 8, 16, 32, 64]


def test_a_long_training_has_about_two_hundred_measurements() -> None:
    assert 100 < len(measured_steps(0.1, 20_000, cost=0.01).measured) < 260


def test_a_smaller_budget_and_a_dearer_measurement_lengthen_the_interval() -> None:
    def gap(budget: float, cost: float) -> float:
        measured = measured_steps(budget, 5_000, cost=cost, known=False).measured
        return measured[-1] - measured[-2]

    assert gap(0.01, 1.0) == pytest.approx(3 * gap(0.03, 1.0), rel=0.1)
    assert gap(0.03, 4.0) == pytest.approx(4 * gap(0.03, 1.0), rel=0.1)


def test_cost_is_said() -> None:
    assert measured_steps(0.03, 1_000, cost=1.0).sentence().endswith("of the time.")
    assert "more than the budget of 3.0%" in measured_steps(0.03, 3, cost=1.0).sentence()
    assert MeasurementPace(0.03).sentence() == "no measurement was made."
