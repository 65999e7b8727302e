"""Circles: small images of one circle with a colour and a size, conditioned on both and on its place; one combination is held out.

Colour goes from red to blue and size from big to small. A circle with soft edges is painted on white, and what its red and blue channels
take away from the background adds up to the mask, so that colour, size and place of any image are read without a classifier. The images are
those of arXiv:2406.19370, smaller.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds._batch import WorldBatch

__all__ = [
    "CLASSES", "Config", "World", "WorldBatch", "attributes", "concept_distances", "evaluation", "make", "paint", "sample", "score",
]  # fmt: skip

Floats = NDArray[np.float64]
CLASSES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Combinations of colour (0 red, 1 blue) and size (0 big, 1 small); small blue circles are held out."""
_RADIUS = 0.45
"""Radius between big and small; an image is 2 wide."""
_REACH = 0.3
"""Largest distance of the middle of a circle from that of the image, in each direction."""
_LEAST_AREA = 1.0
"""Pixels of a mask below which there is no circle whose colour could be read."""


@dataclass(frozen=True)
class Config:
    signals: tuple[float, float] = (0.25, 0.1)
    """Distance of the two classes of colour, in brightness of a channel from 0 to 1, and of size, in radius; an image is 2 wide."""
    jitter: float = 0.25
    """Half the range of colour and size within a class, as a share of half the signal."""
    side: int = 8
    """Pixels."""
    masked: float = 0.0
    """Share of the images whose colour is missing in the condition (underspecification): it is 0 there, between red and blue."""
    images: int = 32
    """Images of each evaluation set."""
    seed: int = 0


@dataclass(frozen=True)
class World:
    config: Config

    def centre(self, combination: tuple[int, int]) -> Floats:
        """Attributes of the middle of a class: colour, size, and both places, which are 0."""
        signs = 2.0 * np.array(combination) - 1
        return np.concatenate([signs * np.array(self.config.signals) / 2, [0.0, 0.0]])


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: signals that leave the range of colours or the image, invalid shares, or an image below 6 pixels a side.
    """
    config = config or Config()
    if len(config.signals) != 2 or not min(config.signals) > 0:
        raise BadInput(f"`signals` must be two numbers above 0, got {config.signals}.")
    if not (0 <= config.masked <= 1 and 0 <= config.jitter < 1):
        raise BadInput(
            f"`masked` must be 0 to 1 and `jitter` 0 to below 1, got {config.masked} and {config.jitter}: change them."
        )
    largest = 1 + config.jitter
    if largest * config.signals[0] > 1 or largest * config.signals[1] / 2 > _RADIUS - 0.1:
        raise BadInput(
            f"`signals` must be at most {1 / largest:.3g} and {2 * (_RADIUS - 0.1) / largest:.3g} with a jitter of {config.jitter}, "
            f"got {config.signals}: choose smaller ones."
        )
    if config.side < 6 or config.images < 1:
        raise BadInput(f"`side` must be at least 6 and `images` at least 1, got {config.side} and {config.images}.")
    return World(config)


def sample(world: World, rng: np.random.Generator, n: int) -> WorldBatch:
    """Images of the three shown combinations: attributes as condition, images as targets."""
    return _batch(world, rng, np.array(CLASSES[:3])[rng.integers(3, size=n)], world.config.masked)


def evaluation(world: World) -> Mapping[str, WorldBatch]:
    """A set of each combination, equal for equal worlds, with complete conditions: `00`, `01`, `10`, and `11`, the held-out one."""
    sets = {}
    for number, combination in enumerate(CLASSES):
        rng = np.random.default_rng([world.config.seed, 1, number])
        sets["".join(map(str, combination))] = _batch(world, rng, np.tile(combination, (world.config.images, 1)), 0.0)
    return sets


def paint(
    world: World, exact: Float[NDArray[np.float64], "image 4"]
) -> Float[NDArray[np.float64], "image 3 side side"]:
    """Images, from −1 to 1, with these attributes: colour and size as distances from the middle between the classes, and both places."""
    side = world.config.side
    grid = (np.arange(side) + 0.5) * 2 / side - 1
    colour, size, x, y = (column[:, None, None] for column in exact.T)
    distance = np.hypot(grid[None, None, :] - x, grid[None, :, None] - y)
    mask = np.clip((_RADIUS - size - distance) * side / 2 + 0.5, 0, 1)
    # Half the brightness, plus or minus half of what separates red from blue.
    channels = np.stack([0.5 - colour, np.full_like(colour, 0.5), 0.5 + colour], axis=1)
    images: Floats = 2 * (1 - mask[:, None] * (1 - channels)) - 1
    return images


def attributes(world: World, images: Float[NDArray[np.float64], "image 3 side side"]) -> Floats:
    """Attributes of images, image × attribute, as `paint` takes them; NaN where there is no circle."""
    side = world.config.side
    grid = (np.arange(side) + 0.5) * 2 / side - 1
    shown = (1 + np.asarray(images, dtype=np.float64)) / 2
    # A tint of the whole background is not part of the circle.
    background = np.median(shown.reshape(*shown.shape[:2], -1), axis=2)[..., None, None]
    taken = background - shown
    mask = taken[:, 0] + taken[:, 2]
    area = mask.sum((1, 2))
    present = area >= _LEAST_AREA
    divisor = np.where(present, area, 1.0)
    colour = (taken[:, 0] - taken[:, 2]).sum((1, 2)) / divisor / 2
    size = _RADIUS - np.sqrt(np.maximum(area, 0) / np.pi) * 2 / side
    x, y = (mask.sum(axis) @ grid / divisor for axis in (1, 2))
    return np.where(present[:, None], np.stack([colour, size, x, y], axis=1), np.nan)


def concept_distances(world: World) -> Floats:
    """Distance between the images of the two classes of colour, and of size, in the middle and with the other concept in between."""
    distances = []
    for concept in range(2):
        ends = np.zeros((2, 4))
        ends[:, concept] = np.array([-1, 1]) * world.config.signals[concept] / 2
        red, blue = paint(world, ends)
        distances.append(float(np.linalg.norm(red - blue)))
    return np.array(distances)


def score(world: World, outputs: Floats, batch: WorldBatch) -> Mapping[str, Floats]:
    """The oracle: squared error, and whether colour, size and both of an output are of the right class; without a circle none is."""
    read = attributes(world, outputs)
    first, second = (
        ((read[:, i] > 0) == batch.coordinates[name]).astype(float) * np.isfinite(read[:, i])
        for i, name in enumerate(("first", "second"))
    )
    loss = ((outputs - batch.targets) ** 2).mean((1, 2, 3))
    return {"loss": loss, "first": first, "second": second, "both": first * second}


def _batch(world: World, rng: np.random.Generator, classes: NDArray[np.int64], masked: float) -> WorldBatch:
    config, n = world.config, len(classes)
    half = np.array(config.signals) / 2
    concepts = (2 * classes - 1) * half + rng.uniform(-1, 1, (n, 2)) * config.jitter * half
    exact = np.concatenate([concepts, rng.uniform(-_REACH, _REACH, (n, 2))], axis=1)
    condition = exact.copy()
    condition[rng.random(n) < masked, 0] = 0
    coordinates = {"first": classes[:, 0], "second": classes[:, 1], "attributes": exact}
    return WorldBatch(condition, paint(world, exact), coordinates)
