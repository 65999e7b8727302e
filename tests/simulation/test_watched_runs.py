"""Alerts of simulated trainings: none where nothing happens, and soon after what is planted."""

import pytest

from tests.simulation.watched_runs import PLANTED_RUNS, simulate

SMALL = {"checkpoints": 12, "groups": 40, "width": 4, "sites": 1}


@pytest.mark.parametrize("kind", ["turning slowly"])
def test_nothing_is_raised_where_nothing_happens(kind: str) -> None:
    assert simulate(kind, 1, **SMALL).alerts == []


@pytest.mark.parametrize(("kind", "alert"), [(kind, PLANTED_RUNS[kind]) for kind in ("emerges", "turns", "drifts")])
def test_what_is_planted_is_found_within_four_checkpoints(kind: str, alert: str) -> None:
    run = simulate(kind, 1, **SMALL)
    assert run.delay(alert) <= 4
    assert all(int(found.checkpoint) >= run.event for found in run.alerts)
