"""Calibration error, its baseline, Brier score and reliability bins: exact on small cases; overconfidence is detected."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.errors import BadInput
from ontogeny.metrics.calibration import (
    brier_score,
    expected_calibration_error,
    perfect_calibration_error,
    reliability_bins,
)


def test_matches_a_small_case_by_hand():
    sure = torch.tensor([0.95, 0.95, 0.55, 0.55])
    right = torch.tensor([True, False, True, True])
    # Bin [.9, 1]: |.5 − .95|; bin [.5, .6): |1 − .55|; half of the answers in each.
    assert expected_calibration_error(sure, right).item() == pytest.approx(0.45)
    bins = reliability_bins(sure, right)
    assert [(b.low, b.n, b.accuracy) for b in bins] == [(0.5, 2, 1.0), (0.9, 2, 0.5)]
    assert all(b.accuracy_low <= b.accuracy <= b.accuracy_high for b in bins)
    shares = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    assert brier_score(shares, torch.tensor([0, 1, 0])).tolist() == pytest.approx([0.0, 2.0, 0.5])


@pytest.mark.parametrize("by", ["width", "count"])
def test_baseline_covers_a_calibrated_model_and_not_an_overconfident_one(by):
    generator = torch.Generator().manual_seed(0)
    sure = 0.5 + 0.5 * torch.rand(400, generator=generator)
    calibrated, overconfident = (
        torch.rand(400, generator=generator) < share for share in (sure, 0.5 + (sure - 0.5) / 2)
    )
    floor = perfect_calibration_error(sure, by=by)
    assert expected_calibration_error(sure, calibrated, by=by) < floor.quantile(0.975)
    assert expected_calibration_error(sure, overconfident, by=by) > 1.5 * floor.quantile(0.975)


def test_bins_of_equal_count_keep_ties_together():
    sure = torch.linspace(0.5, 1, 100)
    assert [b.n for b in reliability_bins(sure, sure > 0.7, by="count")] == [10] * 10
    assert len(reliability_bins(torch.full((30,), 0.8), torch.ones(30, dtype=torch.bool), by="count")) == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 10_000))
def test_ece_lies_between_the_overall_gap_and_one(n, bins, seed):
    generator = torch.Generator().manual_seed(seed)
    sure, right = torch.rand(n, generator=generator), torch.rand(n, generator=generator) < 0.5
    gap = abs(float(right.double().mean() - sure.double().mean()))
    for by in ("width", "count"):
        value = float(expected_calibration_error(sure, right, bins=bins, by=by))
        assert gap - 1e-9 <= value <= 1
        weighted = expected_calibration_error(sure, right, bins=bins, by=by, weights=torch.ones(3, n))
        assert weighted.tolist() == pytest.approx([value] * 3)
        assert sum(b.n for b in reliability_bins(sure, right, bins=bins, by=by)) == n


def test_rejects_missing_and_invalid_confidences():
    for bad in (torch.tensor([]), torch.tensor([1.2]), torch.tensor([torch.nan])):
        with pytest.raises(BadInput, match="from 0 to 1"):
            expected_calibration_error(bad, torch.ones(len(bad), dtype=torch.bool))
