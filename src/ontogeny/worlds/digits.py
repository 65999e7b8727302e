"""Digits as small images, of seven segments or handwritten, with a bright patch whose place can name a class: a planted spurious feature.

The patch is `absent`, `random` or `aligned` with the digit; `conflicting` sets name another digit. A model that reads the patch is right on
aligned images and wrong on conflicting ones.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput, unknown_name
from ontogeny.worlds._batch import WorldBatch
from ontogeny.worlds._idx import read_labelled_images

__all__ = ["Config", "World", "WorldBatch", "evaluation", "make", "sample", "score"]

Floats = NDArray[np.float64]
Patch = Literal["absent", "random", "aligned", "conflicting"]
_SEGMENTS = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
"""Lit segments of each digit: a on top, clockwise to f, g in the middle."""
_HEIGHT, _WIDTH = 12, 10
_DIGIT_ROWS = 10
"""Rows of the digit; the patch lies below."""
_HELD_OUT = 5
"""Of the handwritten digits of a class, every fifth is for evaluation."""


@dataclass(frozen=True)
class Config:
    classes: int = 4
    """Digits 0 to classes − 1."""
    noise: float = 0.35
    """Standard deviation of the pixels' noise; handwritten digits vary by themselves and get none."""
    patch: Patch = "absent"
    """The patch of training images."""
    examples: int = 256
    """Images per evaluation set."""
    seed: int = 0
    images: str = ""
    """Folder of handwritten digits in the IDX format, such as MNIST; "" for seven-segment digits."""


@dataclass(frozen=True)
class World:
    config: Config
    shapes: tuple[Floats, ...]
    """For each class its images without noise and patch, image × height × width; one of seven segments."""

    @property
    def pixels(self) -> int:
        """Values of an image."""
        return _HEIGHT * _WIDTH


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: fewer than two or more than ten classes, an unknown patch, or a folder without images of each class.
    """
    config = config or Config()
    if not 2 <= config.classes <= 10:
        raise BadInput(f"`classes` must be 2 to 10, got {config.classes}.")
    if config.patch not in get_args(Patch):
        raise unknown_name("patch", config.patch, get_args(Patch))
    if config.images:
        return World(config, _handwritten(Path(config.images), config.classes))
    return World(config, tuple(_glyph(_SEGMENTS[digit])[None] for digit in range(config.classes)))


def sample(world: World, rng: np.random.Generator, n: int) -> WorldBatch:
    """Flat images as inputs and one-hot digits as targets; coordinates `digit` and `patch` (−1: none)."""
    return _batch(world, rng, n, world.config.patch, held_out=False)


def evaluation(world: World) -> Mapping[str, WorldBatch]:
    """Named sets, equal for equal worlds: images with each kind of patch."""
    rng = np.random.default_rng([world.config.seed, 1])
    return {kind: _batch(world, rng, world.config.examples, kind, held_out=True) for kind in get_args(Patch)}


def score(world: World, outputs: Floats, batch: WorldBatch) -> Mapping[str, Floats]:
    """The oracle: half the squared error of each image's class shares (Brier), and whether the digit is right.

    Args:
        outputs: Shares of the classes, image × class.
    """
    return {
        "loss": ((outputs - batch.targets) ** 2).sum(1) / 2,
        "accuracy": (outputs.argmax(1) == batch.coordinates["digit"]).astype(np.float64),
    }


def _batch(world: World, rng: np.random.Generator, n: int, kind: Patch, *, held_out: bool) -> WorldBatch:
    classes = world.config.classes
    digit = rng.integers(classes, size=n)
    place = {
        "absent": np.full(n, -1),
        "random": rng.integers(classes, size=n),
        "aligned": digit,
        "conflicting": (digit + rng.integers(1, classes, size=n)) % classes,
    }[kind]
    if world.config.images:
        pools = [own[::_HELD_OUT] if held_out else np.delete(own, np.s_[::_HELD_OUT], 0) for own in world.shapes]
        images = np.stack([pools[of][rng.integers(len(pools[of]))] for of in digit])
    else:
        glyphs = np.concatenate(world.shapes)
        images = glyphs[digit] + world.config.noise * rng.standard_normal((n, _HEIGHT, _WIDTH))
    column = np.linspace(0, _WIDTH - 2, classes).round().astype(int)
    for row in np.flatnonzero(place >= 0):
        images[row, -2:, column[place[row]] : column[place[row]] + 2] += 2.0
    return WorldBatch(images.reshape(n, -1), np.eye(classes)[digit], {"digit": digit, "patch": place})


@functools.lru_cache(maxsize=2)
def _handwritten(folder: Path, classes: int) -> tuple[Floats, ...]:
    """The images of each class, by area averages on the digit's rows, between 0 and 1."""
    images, labels = read_labelled_images(folder)
    counts = [int((labels == digit).sum()) for digit in range(classes)]
    if min(counts) <= _HELD_OUT:
        raise BadInput(
            f"{folder} must hold more than {_HELD_OUT} images of each digit below {classes}, got {min(counts)} of one: "
            "name another folder, or ask for fewer `classes`."
        )
    rows, columns = (_area_weights(size, n) for size, n in zip(images.shape[1:], (_DIGIT_ROWS, _WIDTH), strict=True))
    small = np.einsum("rh,nhw,cw->nrc", rows, images / 255, columns, optimize=True)
    below = np.zeros((len(small), _HEIGHT - _DIGIT_ROWS, _WIDTH))
    padded = np.concatenate([small, below], 1)
    return tuple(padded[labels == digit] for digit in range(classes))


def _area_weights(size: int, cells: int) -> Floats:
    """The share of each pixel of a line in each of some equal cells."""
    edges = np.linspace(0, size, cells + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size))
    return np.clip(overlap, 0, None) * cells / size


def _glyph(lit: str) -> Floats:
    """A digit in the upper ten rows; the patch lies below."""
    image = np.zeros((_HEIGHT, _WIDTH))
    boxes = {
        "a": (0, 1, 2, 8), "g": (4, 5, 2, 8), "d": (8, 9, 2, 8), "f": (0, 5, 1, 2), "b": (0, 5, 8, 9), "e": (4, 9, 1, 2), "c": (4, 9, 8, 9),
    }  # fmt: skip
    for segment in lit:
        top, bottom, left, right = boxes[segment]
        image[top:bottom, left:right] = 1.0
    return image
