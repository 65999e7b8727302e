"""Corners: positions of clusters, the held-out corner, coordinates and errors."""

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import corners


def test_clusters_are_at_corners_with_the_right_spread():
    world = corners.make(corners.Config(signals=(1.0, 2.0, 3.0), spread=(0.1, 0.2, 0.4)))
    batch = corners.sample(world, np.random.default_rng(0), 40_000)
    corner, place = batch.coordinates["corner"], batch.coordinates["place"]
    assert {tuple(row) for row in corner.tolist()} == {(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)}
    for told in world.shown:
        points = place[(corner == told).all(1)]
        np.testing.assert_allclose(points.mean(0), told * [1.0, 2.0, 3.0], atol=0.02)
        np.testing.assert_allclose(points.std(0), [0.1, 0.2, 0.4], rtol=0.05)
    assert (batch.inputs == batch.targets).all()


def test_without_origin_there_is_one_cluster_per_concept():
    world = corners.make(corners.Config(origin=False))
    assert world.shown.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("turned", [True, False])
def test_points_lie_in_the_box(turned):
    world = corners.make(corners.Config(width=8, turned=turned))
    batch = corners.sample(world, np.random.default_rng(0), 500)
    np.testing.assert_allclose(world.axes @ world.axes.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(corners.concept_coordinates(world, batch.inputs), batch.coordinates["place"], atol=1e-12)
    np.testing.assert_allclose(corners.concept_coordinates(world, batch.inputs) @ world.axes, batch.inputs, atol=1e-12)
    assert (np.abs(world.axes[:, 2:]).max() > 0.01) == turned


def test_held_out_corner_is_only_in_evaluation():
    world = corners.make(corners.Config(signals=(1.0, 1.5), spread=(0.3, 0.3)))
    sets = corners.evaluation(world)
    assert (sets["held_out"].coordinates["corner"] == 1).all()
    np.testing.assert_allclose(sets["held_out"].coordinates["place"].mean(0), [1.0, 1.5], atol=0.1)
    assert not (sets["shown"].coordinates["corner"] == 1).all(1).any()
    assert sets["corners"].coordinates["place"].tolist() == [[0, 0], [0, 1.5], [1, 0], [1, 1.5]]


def test_apart_keeps_points_away_from_the_held_out_corner():
    near = {}
    for apart in (False, True):
        world = corners.make(corners.Config(spread=(0.5, 0.5), apart=apart))
        place = corners.sample(world, np.random.default_rng(0), 20_000).coordinates["place"]
        near[apart] = (np.linalg.norm(place - world.held_out, axis=1) < 0.5).mean()
    assert near[True] == 0 < near[False]


def test_oracle_splits_the_error_by_concept():
    world = corners.make(corners.Config(width=6))
    batch = corners.evaluation(world)["corners"]
    told = corners.score(world, batch.targets + 2 * world.axes[1], batch)
    np.testing.assert_allclose(told["loss"], 2.0)
    np.testing.assert_allclose(told["along"], [[0, 2.0]] * 4, atol=1e-12)
    np.testing.assert_allclose(told["outside"], 0, atol=1e-12)
    beside = np.linalg.svd(world.axes)[2][-1]
    np.testing.assert_allclose(corners.score(world, batch.targets + 2 * beside, batch)["outside"], 2.0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (corners.Config(signals=(1.0,)), "at least two signals above 0 and as many spreads"),
        (corners.Config(spread=(0.1,)), "at least two signals above 0 and as many spreads"),
        (corners.Config(signals=(1.0, -1.0)), "at least two signals above 0 and as many spreads"),
        (corners.Config(width=1), "at least the number of concepts, 2, got 1"),
    ],
)
def test_rejects_invalid_settings(config, words):
    with pytest.raises(BadInput, match=words):
        corners.make(config)


def test_rejects_clusters_that_cannot_be_apart():
    world = corners.make(corners.Config(signals=(0.01, 9.0), spread=(0.0, 0.0), apart=True))
    assert len(corners.sample(world, np.random.default_rng(0), 10)) == 10
    crowded = corners.make(corners.Config(signals=(1e-9, 4.0), spread=(0.0, 0.0), apart=True))
    object.__setattr__(crowded, "shown", np.array([[1, 1]]))
    with pytest.raises(BadInput, match="take a smaller one"):
        corners.sample(crowded, np.random.default_rng(0), 10)
