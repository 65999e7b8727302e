"""Concept space: points with two concepts and two places, conditioned on their attributes; one combination of concepts is held out.

Each concept has two classes at ± half its signal. Points are attributes in a rotated space with a little noise, so that the attributes of
any output can be read exactly. The vector form of the circles of arXiv:2406.19370, whose concepts are colour and size.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds._batch import WorldBatch

__all__ = ["CLASSES", "Config", "World", "WorldBatch", "attributes", "evaluation", "make", "sample", "score"]

Floats = NDArray[np.float64]
CLASSES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Combinations of the two concepts; the last one is held out."""
_PLACES = 2


@dataclass(frozen=True)
class Config:
    signals: tuple[float, float] = (0.3, 0.6)
    """Distance of the two classes of each concept."""
    jitter: float = 0.25
    """Half the range of an attribute within its class, as a share of half the signal."""
    noise: float = 0.02
    """Standard deviation of the points around their attributes."""
    width: int = 8
    """Dimensions of the points."""
    masked: float = 0.0
    """Share of the points whose first concept is missing in the condition (underspecification): it is 0 there, between both classes."""
    points: int = 64
    """Points of each evaluation set."""
    seed: int = 0


@dataclass(frozen=True)
class World:
    config: Config
    axes: Floats
    """Attribute × dimension, orthonormal: two concepts, then two places."""

    def centre(self, combination: tuple[int, int]) -> Floats:
        """Attributes of the middle of a class, places 0."""
        signs = 2.0 * np.array(combination) - 1
        return np.concatenate([signs * np.array(self.config.signals) / 2, np.zeros(_PLACES)])


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: invalid signals or shares, or fewer dimensions than attributes.
    """
    config = config or Config()
    if len(config.signals) != 2 or not min(config.signals) > 0:
        raise BadInput(f"`signals` must be two numbers above 0, got {config.signals}.")
    if not (0 <= config.masked <= 1 and 0 <= config.jitter < 1 and config.noise >= 0):
        raise BadInput(
            "`masked` must be 0 to 1, `jitter` 0 to below 1 and `noise` not negative, got "
            f"{config.masked}, {config.jitter} and {config.noise}."
        )
    if config.width < 2 + _PLACES:
        raise BadInput(f"`width` must be at least {2 + _PLACES}, got {config.width}.")
    rng = np.random.default_rng([config.seed, 0])
    directions, triangle = np.linalg.qr(rng.standard_normal((config.width, 2 + _PLACES)))
    return World(config, (directions * np.sign(np.diag(triangle))).T)


def sample(world: World, rng: np.random.Generator, n: int) -> WorldBatch:
    """Points of the three shown combinations: attributes as condition, points as targets."""
    return _batch(world, rng, np.array(CLASSES[:3])[rng.integers(3, size=n)], world.config.masked)


def evaluation(world: World) -> Mapping[str, WorldBatch]:
    """A set of each combination, equal for equal worlds, with complete conditions: `00`, `01`, `10`, and `11`, the held-out one."""
    sets = {}
    for number, combination in enumerate(CLASSES):
        rng = np.random.default_rng([world.config.seed, 1, number])
        sets["".join(map(str, combination))] = _batch(world, rng, np.tile(combination, (world.config.points, 1)), 0.0)
    return sets


def _batch(world: World, rng: np.random.Generator, classes: NDArray[np.int64], masked: float) -> WorldBatch:
    config, n = world.config, len(classes)
    half = np.array(config.signals) / 2
    concepts = (2 * classes - 1) * half + rng.uniform(-1, 1, (n, 2)) * config.jitter * half
    exact = np.concatenate([concepts, rng.uniform(-0.5, 0.5, (n, _PLACES))], axis=1)
    points = exact @ world.axes + config.noise * rng.standard_normal((n, config.width))
    condition = exact.copy()
    condition[rng.random(n) < masked, 0] = 0
    return WorldBatch(condition, points, {"first": classes[:, 0], "second": classes[:, 1], "attributes": exact})


def attributes(world: World, points: Floats) -> Floats:
    """Attributes of points, row × attribute."""
    read: Floats = points @ world.axes.T
    return read


def score(world: World, outputs: Floats, batch: WorldBatch) -> Mapping[str, Floats]:
    """The oracle: squared error, and whether each concept of an output is of the right class, and both."""
    read = attributes(world, outputs)
    first, second = (
        ((read[:, i] > 0) == batch.coordinates[name]).astype(float) for i, name in enumerate(("first", "second"))
    )
    return {"loss": ((outputs - batch.targets) ** 2).mean(1), "first": first, "second": second, "both": first * second}
