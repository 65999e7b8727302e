"""p of a value among the draws of its null."""

import math

import pytest
import torch

from ontogeny.statistics.nulls import null_p_value


def test_value_beyond_all_draws_has_the_least_p_and_their_mean_the_largest() -> None:
    draws = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert null_p_value(9.0, draws) == pytest.approx(1 / 5)
    assert null_p_value(2.5, draws) == 1.0


def test_unknown_value_has_no_p() -> None:
    # A steered model in half precision can overflow; no comparison with a NaN holds, so that it would be beyond all draws.
    assert math.isnan(null_p_value(math.nan, torch.randn(20)))


def test_unknown_draws_are_left_out() -> None:
    draws = torch.tensor([1.0, math.nan, 3.0])
    assert null_p_value(2.5, draws) == null_p_value(2.5, draws[[0, 2]])
    assert math.isnan(null_p_value(5.0, torch.full((20,), math.nan)))
