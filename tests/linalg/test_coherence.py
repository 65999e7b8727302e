"""Coherence of directions: the Welch bound, the simplex that attains it, invariances, and directions that have no coherence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.errors import BadInput
from ontogeny.linalg.coherence import coherence, welch_bound


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 14), d=st.integers(1, 8), seed=st.integers(0, 1000))
def test_largest_coherence_is_above_the_welch_bound_and_invariant(count: int, d: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    v = torch.randn(count, d, generator=random, dtype=torch.float64)
    values = coherence(v)
    assert values.max() >= welch_bound(count, d) - 1e-9
    turned = torch.linalg.qr(torch.randn(d, d, generator=random, dtype=torch.float64)).Q
    scale = torch.randn(count, 1, generator=random, dtype=torch.float64).sign() * 3
    assert torch.allclose(coherence(scale * v @ turned), values)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_simplex_attains_the_bound_and_axes_have_none(d: int) -> None:
    corners = torch.eye(d + 1, dtype=torch.float64) - 1 / (d + 1)
    assert torch.allclose(coherence(corners), torch.full((d + 1,), welch_bound(d + 1, d), dtype=torch.float64))
    assert welch_bound(12, 4) == pytest.approx(0.426, abs=1e-3)
    assert coherence(torch.eye(4)[None]).eq(0).all()
    assert welch_bound(4, 4) == 0


def test_silly_input() -> None:
    assert coherence(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])).isnan()[0]
    with pytest.raises(BadInput, match="at least two"):
        coherence(torch.ones(1, 3))
    with pytest.raises(BadInput, match="`count` must be at least 2"):
        welch_bound(1, 3)
