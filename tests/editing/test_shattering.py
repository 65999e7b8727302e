"""Shattering by hand, and what it is and is not sensitive to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.editing import shattering
from ontogeny.errors import BadInput


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
def test_rotation_and_shift_leave_it_at_zero_and_scale_moves_the_papers_measure_only(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0]
    moved = shattering(x, scale * x @ turn + 3)
    assert moved.distortion == pytest.approx(abs(scale - 1), abs=1e-6)
    assert moved.rearrangement == pytest.approx(0, abs=1e-6)
    assert moved.procrustes == pytest.approx(0, abs=1e-6)
    other = shattering(x, torch.randn(12, 5, generator=generator, dtype=torch.float64))
    assert 0 < other.procrustes <= 1
    assert other.rearrangement > 0.1


def test_distortion_by_hand_and_too_few_things() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0]])
    moved = shattering(line, torch.tensor([[0.0], [1.0], [4.0]]))  # distances 1, 2, 1 -> 1, 4, 3
    assert moved.distortion == pytest.approx((8 / 6) ** 0.5)
    with pytest.raises(BadInput, match="at least 3 representations"):
        shattering(line[:2], line[:2])
