"""Estimates with their resamples: the interval of an error contains the error."""

import torch

from ontogeny.statistics.bootstrap import BootstrapEstimate


def test_interval_of_an_error_contains_the_error():
    """Resampling increases an error, but its interval is centred on it."""
    number = BootstrapEstimate(0.1, torch.linspace(0.12, 0.2, 200, dtype=torch.float64), 50, 50)
    low, high = number.ends
    assert low < 0.1 < high
