"""Correlations of numbers of any size, and of samples with missing cells, against SciPy."""

import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from ontogeny.statistics.correlation import pearson_correlation, spearman_correlation


def _samples() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(3, 40, generator=draw, dtype=torch.float64)
    return a, (a + torch.randn(3, 40, generator=draw, dtype=torch.float64)).round(decimals=1)


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1.0, 1e200])
def test_correlation_does_not_depend_on_the_unit(scale: float) -> None:
    a, b = _samples()
    expected = [pearsonr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert pearson_correlation(scale * a, scale * b).tolist() == pytest.approx(expected)


def test_missing_cells_are_left_out() -> None:
    a, b = _samples()
    a[0, 3], b[0, 7], a[1, :20] = torch.nan, torch.nan, torch.nan
    both = ~(a.isnan() | b.isnan())
    for mine, theirs in ((pearson_correlation, pearsonr), (spearman_correlation, spearmanr)):
        expected = [theirs(x[at], y[at]).statistic for x, y, at in zip(a, b, both, strict=True)]
        assert mine(a, b).tolist() == pytest.approx(expected)


def test_a_constant_sample_has_no_correlation() -> None:
    _, b = _samples()
    for constant in (0.0, 0.1, 1e6 + 0.1):
        same = torch.full_like(b, constant)
        assert pearson_correlation(same, b).isnan().all()
        assert spearman_correlation(b, same).isnan().all()
