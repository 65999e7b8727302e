"""A saved monitor raises false alarms at the rate that was asked for."""

import pytest
import torch

from ontogeny.metrics.separability import calibrated_fpr, threshold_at_fpr
from tests.simulation.cross_fit_coverage import Situation
from tests.simulation.monitor_rates import false_alarms


@pytest.mark.parametrize(("n", "fpr"), [(20, 0.05), (60, 0.05), (99, 0.01), (150, 0.1)])
def test_a_new_negative_passes_the_threshold_at_most_at_the_rate(n: int, fpr: float) -> None:
    scores = torch.randn(40_000, n + 1, generator=torch.Generator().manual_seed(n))
    held_out, new = scores[:, :n], scores[:, n]
    rate = float((new > threshold_at_fpr(held_out, calibrated_fpr(n, fpr))).float().mean())
    allowed = 2.5 * (fpr / 40_000) ** 0.5
    assert fpr - 1 / (n + 1) - allowed < rate <= fpr + allowed
    uncorrected = float((new > threshold_at_fpr(held_out, fpr)).float().mean())
    assert uncorrected > fpr


def test_a_saved_probe_has_the_rate_of_its_folds() -> None:
    rate, error, _ = false_alarms(Situation("mass_mean", "mixed", 60, 30, 1.0), sets=25)
    assert abs(rate - 0.045) < 3 * error + 0.01
