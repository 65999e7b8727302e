"""Worlds of arrays: the closed-form course of a linear layer, and certified matrix completions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.worlds import corners, low_rank

small = settings(max_examples=15, deadline=None, derandomize=True)


@given(st.lists(st.floats(0.5, 3), min_size=2, max_size=4), st.booleans(), st.integers(0, 99))
@small
def test_second_moment_matches_the_data(signals: list[float], origin: bool, seed: int) -> None:
    spread = tuple(0.1 + 0.1 * i for i in range(len(signals)))
    world = corners.make(corners.Config(tuple(signals), spread, width=6, origin=origin))
    inputs = corners.sample(world, np.random.default_rng(seed), 60_000).inputs
    moment = corners.second_moment(world)
    np.testing.assert_allclose((corners.concept_coordinates(world, inputs) ** 2).mean(0), moment, rtol=0.05)


@given(st.integers(0, 99))
@small
def test_linear_layer_follows_the_closed_form(seed: int) -> None:
    """Compared with small gradient steps on the population loss; twice the time differs."""
    world = corners.make(corners.Config((1.0, 1.7), (0.3, 0.2), width=5, seed=seed))
    weights = np.random.default_rng(seed).normal(0, 0.4, (5, 5))
    inputs = np.concatenate([corners.evaluation(world)["corners"].inputs, np.eye(5)])
    moment = world.axes.T @ np.diag(corners.second_moment(world)) @ world.axes
    stepped, step, count = weights.copy(), 1e-3, 1500
    for _ in range(count):
        stepped -= step * (stepped - np.eye(5)) @ moment
    early, told, late = corners.linear_flow_outputs(world, weights, inputs, step * count * np.array([0, 1, 2]))
    np.testing.assert_allclose(early, inputs @ weights.T, atol=1e-12)
    np.testing.assert_allclose(told, inputs @ stepped.T, atol=3e-3)
    assert np.abs(late - told).max() > 0.03


def test_stronger_concept_is_learned_first_unless_spread_reverses_it() -> None:
    for spread, first in (((0.1, 0.1), 1), ((1.5, 0.1), 0)):
        world = corners.make(corners.Config((1.0, 1.5), spread, width=4))
        corner = corners.evaluation(world)["corners"].inputs[-1:]
        there = corners.concept_coordinates(
            world, corners.linear_flow_outputs(world, np.zeros((4, 4)), corner, np.array([1.0]))[0]
        )[0]
        assert np.argmax(there / world.held_out) == first


@given(st.integers(0, 2**32 - 1), st.sampled_from([(4, 6, 1), (7, 7, 2), (6, 5, 3)]))
@small
def test_completion_has_the_smallest_nuclear_norm(seed: int, shape: tuple[int, int, int]) -> None:
    rows, columns, rank = shape
    world = low_rank.make(low_rank.Config(rows, columns, rank))
    batch = low_rank.sample(world, np.random.default_rng(seed), 8)
    matrix, observed = batch.coordinates["matrix"], batch.coordinates["observed"]
    found = low_rank.complete_matrix(matrix, observed, steps=1500)
    assert (found.matrix[observed] == matrix[observed]).all()
    assert (found.norm >= found.bound - 1e-9).all()
    assert (found.norm - found.bound <= 0.01 * found.norm + 1e-9).all()
    # The bound holds for whatever else agrees with what was observed: the truth, and gaps filled with anything.
    noise = np.random.default_rng(seed).normal(size=matrix.shape)
    for other in (matrix, np.where(observed, matrix, 0), np.where(observed, matrix, noise)):
        assert (np.linalg.svd(other, compute_uv=False).sum(-1) >= found.bound - 1e-6).all()


@pytest.mark.parametrize(("factors", "completes"), [("uniform", True), ("full", False)])
def test_only_low_rank_matrices_can_be_completed(factors: str, completes: bool) -> None:
    world = low_rank.make(low_rank.Config(20, 20, 1, factors, missing=0.2, decimals=4))
    batch = low_rank.sample(world, np.random.default_rng(0), 10)
    found = low_rank.complete_matrix(batch.coordinates["matrix"], batch.coordinates["observed"])
    told = low_rank.score(world, found.matrix.reshape(10, -1), batch)
    assert (np.median(told["missing"]) < 1e-4) == completes
    assert completes or np.median(told["missing"]) > 0.1
