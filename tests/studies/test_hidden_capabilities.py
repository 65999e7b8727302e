"""Hidden capabilities: the choice of a strength is on other samples, and the world reads the attributes of its points."""

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.studies._prompting import best_on_other_half, turn_index
from ontogeny.worlds import concept_space


def test_the_best_of_many_useless_moves_is_chance() -> None:
    """Chosen and reported on one set, the best of twenty coins would be well above a half."""
    rng = np.random.default_rng(0)
    draws = [best_on_other_half(list((rng.random((20, 40)) < 0.5).astype(float))) for _ in range(300)]
    assert float(np.mean(draws)) == pytest.approx(0.5, abs=0.02)
    assert best_on_other_half([np.zeros(8), np.ones(8), np.zeros(8)]) == 1


def test_attributes_are_read_back_and_masked_only_in_the_condition() -> None:
    world = concept_space.make(concept_space.Config(noise=0.0, masked=1.0))
    batch = concept_space.sample(world, np.random.default_rng(0), 50)
    read = concept_space.attributes(world, batch.targets)
    np.testing.assert_allclose(read, batch.coordinates["attributes"], atol=1e-12)
    assert (batch.inputs[:, 0] == 0).all()
    np.testing.assert_allclose(read[:, 1:], batch.inputs[:, 1:], atol=1e-12)
    assert not ((batch.coordinates["first"] == 1) & (batch.coordinates["second"] == 1)).any()
    np.testing.assert_allclose(world.centre((1, 0))[:2], [0.15, -0.3])


def test_turn_is_the_corner_of_a_path_and_not_its_jitter() -> None:
    path = np.array([[0, 0], [0, 0.5], [0, 1], [0.5, 1], [1, 1], [1.001, 1], [1, 1.001], [1, 1]])
    assert turn_index(path) == 2
    assert turn_index(path[:2]) is None
    assert turn_index(np.zeros((5, 2))) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"signals": (0.3,)},
        {"signals": (0.0, 1.0)},
        {"signals": (0.3, -1.0)},
        {"masked": 1.5},
        {"masked": float("nan")},
        {"jitter": 1.0},
        {"noise": -1.0},
        {"width": 3},
    ],
)
def test_bad_settings_are_one_line(settings: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=r"`(signals|masked|width)`"):
        concept_space.make(concept_space.Config(**settings))  # type: ignore[arg-type]
