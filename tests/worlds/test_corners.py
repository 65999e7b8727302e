"""Corners: clusters where they should be, a corner that is never shown, coordinates that turn back."""

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.worlds import corners


def test_clusters_stand_on_the_corners_with_their_spread():
    world = corners.make(corners.Config(signals=(1.0, 2.0, 3.0), spread=(0.1, 0.2, 0.4)))
    batch = corners.sample(world, np.random.default_rng(0), 40_000)
    corner, place = batch.coordinates["corner"], batch.coordinates["place"]
    assert {tuple(row) for row in corner.tolist()} == {(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)}
    for told in world.shown:
        points = place[(corner == told).all(1)]
        np.testing.assert_allclose(points.mean(0), told * [1.0, 2.0, 3.0], atol=0.02)
        np.testing.assert_allclose(points.std(0), [0.1, 0.2, 0.4], rtol=0.05)
    assert (batch.inputs == batch.targets).all()


def test_without_the_origin_there_is_a_cluster_a_concept():
    world = corners.make(corners.Config(origin=False))
    assert world.shown.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("turned", [True, False])
def test_points_lie_in_the_box_and_nowhere_else(turned):
    world = corners.make(corners.Config(width=8, turned=turned))
    batch = corners.sample(world, np.random.default_rng(0), 500)
    np.testing.assert_allclose(world.axes @ world.axes.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(corners.concept_coordinates(world, batch.inputs), batch.coordinates["place"], atol=1e-12)
    np.testing.assert_allclose(corners.concept_coordinates(world, batch.inputs) @ world.axes, batch.inputs, atol=1e-12)
    assert (np.abs(world.axes[:, 2:]).max() > 0.01) == turned


def test_the_held_out_corner_is_evaluated_and_never_shown():
    world = corners.make(corners.Config(signals=(1.0, 1.5), spread=(0.3, 0.3)))
    sets = corners.evaluation(world)
    assert (sets["held_out"].coordinates["corner"] == 1).all()
    np.testing.assert_allclose(sets["held_out"].coordinates["place"].mean(0), [1.0, 1.5], atol=0.1)
    assert not (sets["shown"].coordinates["corner"] == 1).all(1).any()
    assert sets["corners"].coordinates["place"].tolist() == [[0, 0], [0, 1.5], [1, 0], [1, 1.5]]


def test_kept_apart_no_point_comes_near_the_held_out_corner():
    near = {}
    for apart in (False, True):
        world = corners.make(corners.Config(spread=(0.5, 0.5), apart=apart))
        place = corners.sample(world, np.random.default_rng(0), 20_000).coordinates["place"]
        near[apart] = (np.linalg.norm(place - world.held_out, axis=1) < 0.5).mean()
    assert near[True] == 0 < near[False]


def test_the_oracle_says_along_which_concept_an_output_is_wrong():
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
        (corners.Config(signals=(1.0,)), "no box"),
        (corners.Config(spread=(0.1,)), "no box"),
        (corners.Config(signals=(1.0, -1.0)), "no box"),
        (corners.Config(width=1), "do not fit"),
    ],
)
def test_settings_that_make_no_box_are_refused(config, words):
    with pytest.raises(BadInput, match=words):
        corners.make(config)


def test_clusters_that_cannot_be_kept_apart_are_refused():
    world = corners.make(corners.Config(signals=(0.01, 9.0), spread=(0.0, 0.0), apart=True))
    assert len(corners.sample(world, np.random.default_rng(0), 10)) == 10
    crowded = corners.make(corners.Config(signals=(1e-9, 4.0), spread=(0.0, 0.0), apart=True))
    object.__setattr__(crowded, "shown", np.array([[1, 1]]))
    with pytest.raises(BadInput, match="smaller spread"):
        corners.sample(crowded, np.random.default_rng(0), 10)
