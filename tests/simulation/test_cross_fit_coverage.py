"""Cross-fitted intervals hold the truth over split, groups and fit, from chance to strong scores."""

import pytest

from tests.simulation.cross_fit_coverage import Situation, coverage, step_coverage


@pytest.mark.parametrize(
    ("kind", "groups", "d", "gap"),
    [
        ("mixed", 12, 30, 0.0),
        ("one", 20, 30, 1.5),
        ("mixed", 40, 30, 0.0),
        ("one", 40, 200, 2.0),
    ],
)
def test_intervals_cover_split_groups_and_fit(kind: str, groups: int, d: int, gap: float) -> None:
    found = coverage(Situation("mass_mean", kind, groups, d, gap), sets=200)
    # Two standard errors of 200 data sets below .93; a little wide is allowed for few groups.
    assert 0.90 <= found.covered <= 0.997, found
    if gap == 0 and groups == 40:
        assert found.tests_alone < 0.91, "intervals of the test groups alone would do"


def test_interval_of_a_weak_curve_holds_its_step() -> None:
    found = step_coverage(0.85, 80, sets=60)
    assert 0.6 < found.final < 0.68
    assert found.told > 0.3
    assert found.covered >= 0.9
