"""Closed forms of editors against independent float64 solutions, and the properties that each of them promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.editing.closed_forms import alphaedit_keys, memit_keys, null_space, rome_keys
from ontogeny.errors import BadInput

INSIDE, D, FACTS = 20, 8, 3


def problem(seed: int, *, facts: int = FACTS):
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randn(400, INSIDE, generator=generator, dtype=torch.float64) * torch.logspace(-1, 1, INSIDE)
    keys = torch.randn(INSIDE, facts, generator=generator, dtype=torch.float64)
    residuals = torch.randn(facts, D, generator=generator, dtype=torch.float64)
    return texts.T @ texts / len(texts), keys, residuals


def test_rome_is_the_constrained_least_squares_solution() -> None:
    """min tr(ΔᵀCΔ) subject to kᵀΔ = rᵀ, by its Karush-Kuhn-Tucker system in numpy."""
    moment, keys, residuals = problem(0, facts=1)
    update = (rome_keys(moment, keys[:, 0]) @ residuals).numpy()
    system = np.zeros((INSIDE + 1, INSIDE + 1))
    system[:INSIDE, :INSIDE] = 2 * moment.numpy()
    system[:INSIDE, -1] = system[-1, :INSIDE] = keys[:, 0].numpy()
    wanted = np.linalg.solve(system, np.vstack([np.zeros((INSIDE, D)), residuals.numpy()]))[:INSIDE]
    np.testing.assert_allclose(update, wanted, rtol=1e-9, atol=1e-12)


def test_memit_is_the_weighted_least_squares_solution() -> None:
    """min ‖KᵀΔ − R‖² + λ tr(ΔᵀCΔ), as one stacked problem in numpy."""
    moment, keys, residuals = problem(1)
    update = (memit_keys(moment, keys, 0.1) @ residuals).numpy()
    root = np.linalg.cholesky(moment.numpy()).T
    rows = np.vstack([keys.T.numpy(), np.sqrt(0.1 * INSIDE) * root])
    wanted = np.linalg.lstsq(rows, np.vstack([residuals.numpy(), np.zeros((INSIDE, D))]), rcond=None)[0]
    np.testing.assert_allclose(update, wanted, rtol=1e-8, atol=1e-12)


def test_alphaedit_is_the_papers_formula_with_a_relative_ridge() -> None:
    """Δ = R KᵀP (KₚKₚᵀP + KKᵀP + λI)⁻¹ of the paper, whose weights are transposed."""
    moment, keys, residuals = problem(2)
    before = problem(3)[1]
    space = null_space(moment, 0.7)
    update = alphaedit_keys(space.projector, before, keys, 0.1) @ residuals
    p = space.projector.numpy()
    ridge = 0.1 * np.mean(np.sum((p @ keys.numpy()) ** 2, axis=0)) * np.eye(INSIDE)
    inner = (before @ before.T).numpy() @ p + (keys @ keys.T).numpy() @ p + ridge
    paper = residuals.T.numpy() @ keys.T.numpy() @ p @ np.linalg.inv(inner)
    np.testing.assert_allclose(update.numpy(), paper.T, rtol=1e-8, atol=1e-12)
    assert space.rank == 14
    assert torch.allclose(space.projector @ update, update)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_edits_do_not_depend_on_the_scale_of_the_keys(seed: int, scale: float) -> None:
    """A model whose neurons are all larger gives the same changes of outputs."""
    moment, keys, residuals = problem(seed)
    p, none = null_space(moment, 0.7).projector, torch.zeros(INSIDE, 0, dtype=torch.float64)
    larger = null_space(scale**2 * moment, 0.7).projector
    for before, after in (
        (
            rome_keys(moment, keys[:, 0]) @ residuals[:1],
            rome_keys(scale**2 * moment, scale * keys[:, 0]) @ residuals[:1],
        ),
        (memit_keys(moment, keys, 0.3) @ residuals, memit_keys(scale**2 * moment, scale * keys, 0.3) @ residuals),
        (alphaedit_keys(p, none, keys, 0.3) @ residuals, alphaedit_keys(larger, none, scale * keys, 0.3) @ residuals),
    ):
        assert torch.allclose(before, after * scale, rtol=1e-6, atol=1e-9)


def test_singular_moment_and_unreachable_key_are_one_line() -> None:
    moment, keys, _ = problem(4)
    flat = torch.zeros_like(moment)
    flat[:5, :5] = moment[:5, :5]
    with pytest.raises(BadInput, match=r"second moment of the 20 neurons is singular: give more .* `ridge`"):
        rome_keys(flat, keys[:, 0])
    used = torch.diag(torch.arange(1.0, INSIDE + 1, dtype=torch.float64))
    key = torch.zeros(INSIDE, 1, dtype=torch.float64)
    key[-1] = 1
    space = null_space(used, 0.5)
    with pytest.raises(BadInput, match=r"outside the null space .* `null_share`"):
        alphaedit_keys(space.projector, used[:, :0], key, 0.1)
