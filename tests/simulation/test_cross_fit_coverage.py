"""Cross-fitted intervals hold the truth over split, groups and fit, from chance to strong scores."""

import pytest
import torch

from ontogeny.metrics.separability import accuracy, auroc, macro_auroc
from tests.simulation.cross_fit_coverage import Situation, coverage, step_coverage


@pytest.mark.parametrize(
    ("kind", "groups", "d", "gap"),
    [
        ("mixed", 12, 30, 0.0),
        ("one", 20, 30, 1.5),
        ("mixed", 40, 30, 0.0),
        ("mixed", 40, 30, 2.0),
        ("one", 6, 200, 0.0),
        ("one", 40, 200, 2.0),
    ],
)
def test_intervals_cover_split_groups_and_fit(kind: str, groups: int, d: int, gap: float) -> None:
    result = coverage(Situation("mass_mean", kind, groups, d, gap), sets=1000)
    # Two standard errors of 1,000 data sets beyond .94 and .96.
    assert 0.925 <= result.covered <= 0.975, result
    if gap == 0 and groups == 40:
        assert result.tests_alone < 0.91, "intervals of the test groups alone would do"


@pytest.mark.parametrize("classes", [2, 3])
def test_score_on_new_data_is_that_of_many_new_examples(classes: int) -> None:
    situation, g = Situation("mass_mean", "one", 12, 20, 2.0, classes), torch.Generator().manual_seed(0)
    ((_, fits),) = situation.cross_fit(2, g)
    x, y, _ = situation.draw(g, 12000)
    scores = fits.fold(0).scores(x.expand(2, -1, -1))
    area = auroc(scores[..., 0], y) if classes == 2 else macro_auroc(scores, y)
    assert torch.allclose(situation.score_on_new_data("auroc", fits)[:, 0].float(), area.float(), atol=0.01)
    if classes == 2:
        expected = situation.score_on_new_data("accuracy", fits)[:, 0].float()
        assert torch.allclose(expected, accuracy(scores, y), atol=0.01)


def test_interval_of_a_weak_curve_holds_its_step() -> None:
    found = step_coverage(0.85, 80, sets=60)
    assert 0.6 < found.final < 0.68
    assert found.told > 0.3
    assert found.covered >= 0.9
