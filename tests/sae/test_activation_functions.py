"""Activation functions of sparse autoencoders against their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.sae.activation_functions import BANDWIDTH, jump_relu, sparsemax, top_k


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0.1, 30))
def test_top_k_keeps_the_k_largest_positive_scores(seed: int, k: int, size: float) -> None:
    scores = size * torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(seed))
    values = top_k(scores, k)
    best = scores.relu().topk(k, dim=-1)
    wanted = torch.zeros_like(scores).scatter(-1, best.indices, best.values)
    torch.testing.assert_close(values, wanted, rtol=1e-6, atol=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 30))
def test_sparsemax_is_the_nearest_point_of_the_simplex(seed: int, size: float) -> None:
    g = torch.Generator().manual_seed(seed)
    scores = size * torch.randn(7, 9, generator=g, dtype=torch.float64)
    values = sparsemax(scores)
    torch.testing.assert_close(values.sum(1), torch.ones(7, dtype=torch.float64))
    assert (values >= 0).all()
    # Optimality: for every point q of the simplex, (scores − p)·(q − p) ≤ 0; its corners suffice.
    residual = scores - values
    assert (residual - (residual * values).sum(1, keepdim=True)).max() < 1e-9
    torch.testing.assert_close(sparsemax(scores + 5), values)


def test_sparsemax_and_top_k_have_their_derivatives() -> None:
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sparsemax, scores)
    assert torch.autograd.gradcheck(lambda s: top_k(s, 2), scores)


def test_jump_relu_moves_its_threshold_by_the_scores_near_it() -> None:
    near, far = 1 + BANDWIDTH / 4, 1 + BANDWIDTH
    scores = torch.tensor([[near, far, 0.5]], requires_grad=True)
    threshold = torch.ones(1, 3, requires_grad=True)
    value, fires = jump_relu(scores, threshold)
    assert value.tolist() == [[pytest.approx(near), pytest.approx(far), 0]]
    assert fires.tolist() == [[1, 1, 0]]
    (value.sum() + 2 * fires.sum()).backward()
    assert scores.grad is not None
    assert threshold.grad is not None
    assert scores.grad.tolist() == [[1, 1, 0]]
    # −(θ + 2) / bandwidth inside the window, 0 outside.
    torch.testing.assert_close(threshold.grad, torch.tensor([[-3 / BANDWIDTH, 0, 0]]))
