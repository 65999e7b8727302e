"""Moving window: each output is the sum of two neighbouring inputs modulo a number; learned suddenly after a plateau (arXiv:2506.13688).

A row is the inputs, a separator, and the outputs: y₁ = x₁, yᵢ = (xᵢ₋₁ + xᵢ) mod p. The right sources of every output are known, so that
attention can be scored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds._batch import WorldBatch

__all__ = ["Config", "World", "WorldBatch", "evaluation", "make", "sample", "score", "sources"]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    length: int = 8
    """Number of inputs."""
    modulus: int = 11
    """Inputs are 1 to modulus − 1, outputs 0 to modulus − 1."""
    outputs: Literal["window", "fixed"] = "window"
    """`fixed`: the same outputs for all inputs, a control that needs no attention."""
    examples: int = 256
    """Rows of the evaluation set."""
    seed: int = 0


@dataclass(frozen=True)
class World:
    config: Config

    @property
    def vocabulary(self) -> int:
        """Numbers and the separator, which is the last token."""
        return self.config.modulus + 1

    @property
    def separator(self) -> int:
        return self.config.modulus


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: a row shorter than two inputs, or a modulus below 3.
    """
    config = config or Config()
    if config.length < 2 or config.modulus < 3:
        raise BadInput(
            f"`length` must be at least 2 and `modulus` at least 3, got {config.length} and {config.modulus}."
        )
    return World(config)


def sample(world: World, rng: np.random.Generator, n: int) -> WorldBatch:
    """Rows without their last output as inputs, the outputs as targets."""
    return _batch(world, rng.integers(1, world.config.modulus, (n, world.config.length)))


def evaluation(world: World) -> Mapping[str, WorldBatch]:
    """Named sets, equal for equal worlds: `random` inputs, and `few`, whose inputs are 1 or 2, so that outputs often repeat."""
    config = world.config
    rare = np.random.default_rng([config.seed, 3]).integers(1, 3, (config.examples, config.length))
    return {
        "random": sample(world, np.random.default_rng([config.seed, 1]), config.examples),
        "few": _batch(world, rare),
    }


def score(world: World, outputs: Floats, batch: WorldBatch) -> Mapping[str, Floats]:
    """The oracle: squared error of each row, share of right outputs without the first, which is a copy, and of outputs that repeat the
    one before.

    Args:
        outputs: Predicted numbers, row × output.
    """
    right = (outputs == batch.targets)[:, 1:].mean(1)
    return {
        "loss": ((outputs - batch.targets) ** 2).mean(1),
        "accuracy": right,
        "repetition": (outputs[:, 1:] == outputs[:, :-1]).mean(1),
    }


def sources(world: World, *, shift: int = 0) -> NDArray[np.bool_]:
    """Output × position: the positions that an output depends on; moved by `shift` inputs, as a control."""
    n = world.config.length
    mask = np.zeros((n, 2 * n), dtype=bool)
    for i in range(n):
        for j in (i, i - 1) if i else (i,):
            mask[i, (j + shift) % n] = True
    return mask


def _batch(world: World, x: Ids) -> WorldBatch:
    config = world.config
    y = x.copy()
    y[:, 1:] = (x[:, 1:] + x[:, :-1]) % config.modulus
    if config.outputs == "fixed":
        constant = np.random.default_rng([config.seed, 2]).integers(0, config.modulus, config.length)
        y = np.repeat(constant[None], len(x), axis=0)
    between = np.full((len(x), 1), world.separator)
    rows = np.concatenate([x, between, y], axis=1)
    return WorldBatch(rows[:, :-1], y.astype(np.float64), {"x": x})
