"""Predictions of the linear theory of swing-by dynamics for the images' concepts (arXiv:2410.08309): which is learned first, and the path.

Concepts are coordinates of an image from the mean of the shown ones, colour and size, in units of pixels: the distance between the images
of their two classes. The second moment of the shown images in these coordinates decides everything. It is not diagonal, since of the
combinations of two concepts one is missing. The model is U Uᵀ from small positive weights; nothing is fitted to the denoiser.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ontogeny.worlds import circles, corners

_Floats = NDArray[np.float64]
_INITIALISATIONS = 20
_RATE, _STEPS, _MEASURED = 0.01, 4000, 200
"""Of the theory's descent, in units in which the larger eigenvalue of the second moment is 1."""
_FIRST_WEIGHT = 0.2
"""Largest weight of the first U, as in the paper's scripts."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The mean path over initialisations of what is learned of the held-out combination: 0 the mean of the shown images, 1 the target."""

    steps: _Floats
    """Steps of the theory, whose unit is not that of a training."""
    path: _Floats
    """Step × concept, colour and size."""
    single: _Floats
    """The same of one layer, in closed form."""


def second_moment(world: circles.World) -> _Floats:
    """Second moment of the shown images about their mean, in concept coordinates, pixels²."""
    distance, shown = circles.concept_distances(world), np.array(circles.CLASSES[:3])
    within = (
        world.config.jitter / 2
    ) ** 2 / 3  # of a uniform range of half the distance, times the jitter, on each side
    moment: _Floats = np.cov(shown.T, bias=True) * np.outer(distance, distance) + np.diag(within * distance**2)
    return moment


def predict(world: circles.World) -> Prediction:
    """Predicted path of the held-out combination."""
    distance = circles.concept_distances(world)
    moment = second_moment(world)
    moment = moment / np.linalg.eigvalsh(moment).max()
    target = distance * (1 - np.array(circles.CLASSES[:3]).mean(0))
    rng = np.random.default_rng([0, 7])
    start = rng.uniform(0, _FIRST_WEIGHT, (_INITIALISATIONS, 2, 2))
    steps = np.unique(np.rint(np.linspace(0, _STEPS**0.5, _MEASURED) ** 2).astype(np.int64))
    outputs = corners.two_layer_flow_outputs(moment, start, target, steps, rate=_RATE).mean(0) / target
    values, vectors = np.linalg.eigh(moment)
    gone = np.exp(-_RATE * steps[:, None] * values)
    single = 1 - np.einsum("ij,tj,kj,k->ti", vectors, gone, vectors, target) / target
    return Prediction(steps.astype(np.float64), outputs, single)


def step_of(steps: _Floats, curve: _Floats, level: float) -> float:
    """First step at which a curve has the level, or the last one."""
    above = np.flatnonzero(curve >= level)
    return float(steps[above[0] if len(above) else -1])


def bow(path: _Floats) -> float:
    """Colour less size where the mean of both is first a half, or at the end: how far, and to which side, a path bows."""
    middle = path.mean(1)
    reached = np.flatnonzero(middle >= 0.5)
    at = path[reached[0] if len(reached) else -1]
    return float(at[0] - at[1])


def distance_to_path(points: _Floats, path: _Floats) -> float:
    """Mean distance of points to the nearest point of a path."""
    return float(np.linalg.norm(points[:, None] - path[None], axis=2).min(1).mean())
