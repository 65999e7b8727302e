"""Corners: Gaussian clusters on the corners of a box, one axis per concept, one corner held out of training (arXiv:2410.08309).

The task is the identity. Outputs at the held-out corner show how a model combines concepts: in which order it learns them, and whether it
moves towards a wrong corner first. For one linear layer the course of training is known in closed form.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds._batch import WorldBatch

__all__ = [
    "Config", "World", "WorldBatch", "concept_coordinates", "evaluation", "linear_flow_outputs", "make", "sample",
    "score", "second_moment", "two_layer_flow_outputs",
]  # fmt: skip

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    signals: tuple[float, ...] = (1.0, 2.0)
    """Signal strength of each concept: the distance of its cluster from the origin."""
    spread: tuple[float, ...] = (0.2, 0.2)
    """Standard deviation (not variance) of every cluster along each concept's axis."""
    width: int = 64
    """Dimensions of the space around the box."""
    turned: bool = True
    """Whether the axes of the box are random orthogonal directions instead of the first dimensions."""
    origin: bool = True
    """Whether there is a cluster without any concept; it changes the second moment."""
    apart: bool = False
    """Whether to redraw points nearer to the held-out corner than half the weakest signal."""
    points: int = 400
    """Points per cluster of an evaluation set."""
    seed: int = 0


@dataclass(frozen=True)
class World:
    config: Config
    axes: Floats
    """Concept × dimension, orthonormal."""
    shown: NDArray[np.int64]
    """Cluster × concept, 1 where the concept is present: the corners of the training data."""

    @property
    def held_out(self) -> Floats:
        """The corner with all concepts, in concept coordinates."""
        return np.array(self.config.signals)


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: invalid signals or spreads, or more concepts than dimensions.
    """
    config = config or Config()
    concepts = len(config.signals)
    if concepts < 2 or len(config.spread) != concepts or min(config.signals) <= 0 or min(config.spread) < 0:
        raise BadInput(
            "there must be at least two signals above 0 and as many spreads, not negative, got "
            f"signals {config.signals} and spread {config.spread}."
        )
    if config.width < concepts:
        raise BadInput(f"`width` must be at least the number of concepts, {concepts}, got {config.width}.")
    rng = np.random.default_rng([config.seed, 0])
    if config.turned:
        directions, triangle = np.linalg.qr(rng.standard_normal((config.width, concepts)))
        axes = (directions * np.sign(np.diag(triangle))).T
    else:
        axes = np.eye(concepts, config.width)
    single = np.eye(concepts, dtype=np.int64)
    return World(config, axes, np.concatenate([0 * single[:1], single]) if config.origin else single)


def sample(world: World, rng: np.random.Generator, n: int) -> WorldBatch:
    """Points of the training clusters, all equally likely."""
    corner = world.shown[rng.integers(len(world.shown), size=n)]
    return _batch(world, corner, _points(world, rng, corner, clear=world.config.apart))


def evaluation(world: World) -> Mapping[str, WorldBatch]:
    """Named sets, equal for equal worlds: the `shown` clusters, the `held_out` one, and all `corners` without spread."""
    rng, each = np.random.default_rng([world.config.seed, 1]), world.config.points
    shown = np.repeat(world.shown, each, axis=0)
    hidden = np.ones((each, len(world.axes)), dtype=np.int64)
    corners = np.array(list(itertools.product((0, 1), repeat=len(world.axes))))
    return {
        "shown": _batch(world, shown, _points(world, rng, shown, clear=world.config.apart)),
        "held_out": _batch(world, hidden, _points(world, rng, hidden, clear=False)),
        "corners": _batch(world, corners, corners * world.held_out),
    }


def concept_coordinates(world: World, outputs: Floats) -> Floats:
    """Concept coordinates of points in space: example × concept."""
    return outputs @ world.axes.T


def score(world: World, outputs: Floats, batch: WorldBatch) -> Mapping[str, Floats]:
    """The oracle: half the squared error of each example, its part along each concept, and its part outside of the box."""
    error = outputs - batch.targets
    along = concept_coordinates(world, error)
    return {
        "loss": (error**2).sum(-1) / 2,
        "along": along**2 / 2,
        "outside": np.maximum((error**2).sum(-1) - (along**2).sum(-1), 0) / 2,
    }


def second_moment(world: World) -> Floats:
    """Mean squared concept coordinates of the training data, without redrawn points: signal² × share of clusters with the concept,
    plus spread². Concepts are learned in the order of these numbers.
    """
    return world.held_out**2 * world.shown.mean(axis=0) + np.array(world.config.spread) ** 2


def linear_flow_outputs(world: World, weights: Floats, inputs: Floats, times: Floats) -> Floats:
    """Outputs of a linear layer `inputs @ weights.T` under gradient flow on ½E‖Wx − x‖², from `weights`: time × example × dimension.

    Along a concept the distance to the identity falls as exp(−second moment × time); outside of the box the output is constant.
    """
    decay = np.exp(-second_moment(world) * np.atleast_1d(times)[:, None])
    distance = weights - np.eye(world.config.width)
    inside = np.einsum("tk,kd,ek->ted", decay, (distance @ world.axes.T).T, concept_coordinates(world, inputs))
    rest = inputs - concept_coordinates(world, inputs) @ world.axes
    return inputs + inside + rest @ distance.T


def two_layer_flow_outputs(
    moment: Floats, start: Floats, probe: Floats, steps: NDArray[np.int64], *, rate: float
) -> Floats:
    """Outputs of the symmetric two-layer model U Uᵀ at a point under gradient descent: initialisation × step × concept.

    The step is U ← U − η/2 [(W−I)A + A(W−I)] U with W = U Uᵀ, so W stays positive semi-definite (arXiv:2410.08309).

    Args:
        moment: Second moment A of the data, concept × concept.
        start: First U of each initialisation, initialisation × concept × hidden.
        probe: The point, in concept coordinates.
        steps: Measured steps, ascending.
    """
    u, outputs, eye = start, [], np.eye(len(moment))
    marks = set(steps.tolist())
    for step in range(int(steps[-1]) + 1):
        w = u @ u.swapaxes(1, 2)
        if step in marks:
            outputs.append(w @ probe)
        gap = w - eye
        u = u - rate / 2 * (gap @ moment + moment @ gap) @ u
    return np.stack(outputs, axis=1)


def _points(world: World, rng: np.random.Generator, corner: NDArray[np.int64], *, clear: bool) -> Floats:
    """Concept coordinates of points around corners; if `clear`, away from the held-out corner."""
    spread = np.array(world.config.spread)
    points = corner * world.held_out + spread * rng.standard_normal(corner.shape)
    near = np.array([clear]) & (np.linalg.norm(points - world.held_out, axis=1) < world.held_out.min() / 2)
    for _ in range(100):
        if not near.any():
            return points
        points[near] = corner[near] * world.held_out + spread * rng.standard_normal((near.sum(), len(spread)))
        near = np.linalg.norm(points - world.held_out, axis=1) < world.held_out.min() / 2
    raise BadInput(
        f"points of `spread` {world.config.spread} do not stay apart from the held-out corner: take a smaller one."
    )


def _batch(world: World, corner: NDArray[np.int64], points: Floats) -> WorldBatch:
    inputs = points @ world.axes
    return WorldBatch(inputs, inputs, {"corner": corner, "place": points})
