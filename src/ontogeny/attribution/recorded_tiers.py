"""Tiers that need a recorded path: first order with the curvature of every step, of every m-th step, or of none (arXiv:2506.00175).

The effect of a stage on a behaviour γ is γ(final) − γ(final without the stage's updates). To first order at the path as it was, it is the
sum over the stage's steps of the adjoint after the step times the change of the state. *Updates skipped* is the question it answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ontogeny.attribution.optimizer_steps import (
    OptimizerState,
    Vector,
    adjoint_step,
    initial_state,
    tangent_step,
)
from ontogeny.attribution.path import PathStep, TrainingPath
from ontogeny.errors import BadInput

Behaviour = Callable[[torch.nn.Module], Tensor]
"""A differentiable scalar of a network: a loss on a set, a gap between groups, a margin."""
_MOST_GROWTH = 1e4
"""Growth of the adjoint's norm above which thinned products are unstable."""
CurvatureMode = Literal["hessian", "gauss_newton", "thinned", "none"]


@dataclass(frozen=True)
class StageScores:
    """First-order effect of each stage on a behaviour."""

    scores: tuple[float, ...]
    """γ with the stage's updates minus γ without them."""
    hessian_products: int
    """The cost beside one gradient per step."""


def reverse_scores(
    path: TrainingPath, behaviour: Behaviour, *, curvature: CurvatureMode = "hessian", every: int = 10
) -> StageScores:
    """First-order effects of all stages on one behaviour: one pass backwards along the path.

    Args:
        curvature: `hessian` at every step; `gauss_newton`: its part without negative eigenvalues; `thinned`: the Hessian at every
            `every`-th step, counted `every` times; `none`: left out.

    Raises:
        BadInput: the behaviour is not differentiable, or the thinned products are unstable.
    """
    scores, count = [0.0] * len(path.stages), 0
    adjoint = initial_state(behaviour_gradient(path, behaviour))
    most = _MOST_GROWTH * float(adjoint.parameters.norm())
    later = len(path.stages) - 1
    for index in range(len(path.steps) - 1, -1, -1):
        step = path.steps[index]
        if step.stage != later:  # the buffers after a stage are discarded
            adjoint, later = initial_state(adjoint.parameters), step.stage
        scores[step.stage] += adjoint.dot(path.after(index).minus(step.state))
        product, used = _curvature(path, step, index, curvature, every)
        count += used
        adjoint = adjoint_step(adjoint, step.state, step.gradient, product, step.settings)
        # Counted `every` times, a product acts as one step of that length, which the curvature may not allow.
        if curvature == "thinned" and not float(adjoint.parameters.norm()) <= most:
            raise BadInput(
                f"`every` must be smaller than {every} here, since Hessian products that count {every} times grow without bound: lower it, "
                "or use the curvature of every step."
            )
    return StageScores(tuple(scores), count)


def stage_embeddings(
    path: TrainingPath, *, curvature: CurvatureMode = "hessian", every: int = 10
) -> tuple[Vector, ...]:
    """For each stage the first-order change of the final parameters by its updates: forward mode, once for any number of behaviours.

    The effect of a stage on γ is the gradient of γ times its embedding.
    """
    tangents: list[OptimizerState] = []
    current = -1
    for index, step in enumerate(path.steps):
        if step.stage != current:
            tangents = [initial_state(tangent.parameters) for tangent in tangents]
            tangents += [initial_state(torch.zeros_like(step.state.parameters))] * (step.stage - current)
            current = step.stage
        product, _ = _curvature(path, step, index, curvature, every)
        moved = [tangent_step(t, step.state, step.gradient, product, step.settings) for t in tangents]
        moved[current] = moved[current].plus(path.after(index).minus(step.state))
        tangents = moved
    return tuple(tangent.parameters for tangent in tangents)


def embedding_scores(path: TrainingPath, embeddings: Sequence[Vector], behaviour: Behaviour) -> tuple[float, ...]:
    """Effects of all stages on a behaviour, from their embeddings."""
    gradient = behaviour_gradient(path, behaviour).double()
    return tuple(float(gradient @ embedding.double()) for embedding in embeddings)


def behaviour_gradient(path: TrainingPath, behaviour: Behaviour) -> Vector:
    """Gradient of a behaviour at the final parameters.

    Raises:
        BadInput: the behaviour is not differentiable.
    """
    try:
        return path.network.gradient(path.final.parameters, lambda network, _: behaviour(network), None)
    except RuntimeError as error:
        if "require grad" not in str(error) and "not have been used" not in str(error):
            raise
        raise BadInput(
            "the behaviour must be differentiable in the weights, got one without a gradient: use a margin or a loss, or the tiers "
            "endpoint, subtraction and addition, which need none."
        ) from None


def behaviour_value(path: TrainingPath, vector: Vector, behaviour: Behaviour) -> float:
    """A behaviour at a parameter vector."""
    with torch.no_grad():
        return float(path.network.loss(vector, lambda network, _: behaviour(network), None))


def _curvature(
    path: TrainingPath, step: PathStep, index: int, mode: CurvatureMode, every: int
) -> tuple[Callable[[Vector], Vector], int]:
    """The curvature of a step, and how many Hessian products a use of it costs."""
    factor = {"hessian": 1, "gauss_newton": 1, "none": 0, "thinned": every if index % every == 0 else 0}[mode]
    if factor == 0:
        return torch.zeros_like, 0
    loss, network = path.stages[step.stage].loss, path.network
    multiply = network.gauss_newton_product if mode == "gauss_newton" else network.hessian_product

    def product(direction: Vector) -> Vector:
        return factor * multiply(step.state.parameters, loss, step.batch, direction)

    return product, 1
