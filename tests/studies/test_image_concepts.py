"""Colour and size of images: the rule reads what is painted, the theory has the moment of the world, and its descent its closed form."""

import numpy as np
import pytest

from ontogeny.errors import BadInput
from ontogeny.studies import image_concepts
from ontogeny.studies.image_concepts._reading import Reading
from ontogeny.studies.image_concepts._settings import Settings
from ontogeny.studies.image_concepts._theory import bow, predict, second_moment
from ontogeny.worlds import circles, corners


def test_attributes_are_read_back_also_through_a_tint() -> None:
    world = circles.make(circles.Config(side=16, masked=1.0))
    batch = circles.sample(world, np.random.default_rng(0), 200)
    tint = np.array([-0.1, 0.0, -0.2])[:, None, None]
    for images in (batch.targets, batch.targets + tint):
        read, exact = circles.attributes(world, images), batch.coordinates["attributes"]
        np.testing.assert_allclose(read[:, 1:], exact[:, 1:], atol=0.03)
    np.testing.assert_allclose(circles.attributes(world, batch.targets)[:, 0], exact[:, 0], atol=1e-12)
    assert (batch.inputs[:, 0] == 0).all(), "colour is masked in the condition only"


def test_an_image_without_a_circle_has_no_attributes_and_is_wrong() -> None:
    world = circles.make()
    batch = circles.evaluation(world)["00"]
    nothing = np.ones_like(batch.targets)
    assert np.isnan(circles.attributes(world, nothing)).all()
    assert circles.score(world, nothing, batch)["both"].sum() == 0
    assert circles.score(world, batch.targets, batch)["both"].mean() == 1


def test_second_moment_is_that_of_many_images() -> None:
    world = circles.make(circles.Config(signals=(0.5, 0.2)))
    exact = circles.sample(world, np.random.default_rng(0), 40_000).coordinates["attributes"][:, :2]
    pixels = exact * circles.concept_distances(world) / np.array(world.config.signals)
    np.testing.assert_allclose(np.cov(pixels.T), second_moment(world), atol=0.05)


def test_paths_bow_to_the_stronger_concept() -> None:
    bows = [bow(predict(circles.make(circles.Config(signals=(colour, 0.2)))).path) for colour in (0.25, 0.49, 0.75)]
    assert bows[0] < -0.3
    assert abs(bows[1]) < 0.05
    assert bows[2] > 0.3


def test_two_layers_without_other_weights_are_logistic() -> None:
    moment, first, rate = np.array([0.3, 1.0]), np.array([0.1, 0.2]), 1e-3
    steps = np.array([0, 1000, 4000])
    outputs = corners.two_layer_flow_outputs(np.diag(moment), np.diag(first)[None], np.ones(2), steps, rate=rate)
    odds = (1 / first**2 - 1) * np.exp(-2 * moment * rate * steps[:, None])
    np.testing.assert_allclose(outputs[0], 1 / (1 + odds), atol=2e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"signals": (0.3,)},
        {"signals": (0.0, 0.1)},
        {"signals": (0.9, 0.1)},
        {"signals": (0.3, 0.7)},
        {"jitter": 1.0},
        {"masked": float("nan")},
        {"side": 5},
        {"images": 0},
    ],
)
def test_bad_worlds_are_one_line(changes: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=r"`(signals|masked|side)`"):
        circles.make(circles.Config(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": ()},
        {"channels": (12,)},
        {"side": 7},
        {"steps": 0},
        {"denoising": 0},
        {"denoising": 101},
        {"images": 1},
        {"measured": 1},
        {"averaging": 1.0},
        {"scale": 0.0},
        {"pictures": 99},
    ],
)
def test_bad_settings_are_one_line(changes: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=f"`{next(iter(changes))}`"):
        Settings(**changes)  # type: ignore[arg-type]


def test_steps_count_from_the_first_with_circles() -> None:
    def at(step: int, shown: float) -> tuple[int, Reading]:
        return step, Reading({"shown": shown}, {}, (0.0, 0.0), {})

    early, late, never = at(1, 0.3), at(2, 0.6), at(3, 0.4)
    assert image_concepts._formed([early, late, never]) == [late, never]
    assert image_concepts._formed([early, never]) == [early, never]
