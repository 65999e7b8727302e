"""Steps of SGD and AdamW as functions of a flat state, with their tangents and adjoints (arXiv:2506.00175, section 3).

A state is the parameter vector and the optimiser's buffers. A clip factor multiplies the gradient and counts as a constant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Vector = Float[Tensor, " parameter"]
Curvature = Callable[[Vector], Vector]
"""Product of the loss's second derivative with a vector."""


@dataclass(frozen=True)
class OptimizerState:
    """Parameters and buffers before or after a step; also a tangent or an adjoint of these."""

    parameters: Vector
    first: Vector
    """Momentum buffer of SGD; first moment of Adam."""
    second: Vector
    """Second moment of Adam; zeros with SGD."""

    def minus(self, other: "OptimizerState") -> "OptimizerState":
        return OptimizerState(self.parameters - other.parameters, self.first - other.first, self.second - other.second)

    def plus(self, other: "OptimizerState") -> "OptimizerState":
        return OptimizerState(self.parameters + other.parameters, self.first + other.first, self.second + other.second)

    def dot(self, other: "OptimizerState") -> float:
        pairs = ((self.parameters, other.parameters), (self.first, other.first), (self.second, other.second))
        return float(sum(a.double() @ b.double() for a, b in pairs))

    def without_buffers(self) -> "OptimizerState":
        """The parameters with new buffers, as at the start of a stage."""
        return initial_state(self.parameters)


def initial_state(parameters: Vector) -> OptimizerState:
    """Parameters with empty buffers."""
    return OptimizerState(parameters, torch.zeros_like(parameters), torch.zeros_like(parameters))


@dataclass(frozen=True)
class StepSettings:
    """Everything but the gradient that decides a step."""

    optimizer: Literal["sgd", "adamw"]
    number: int
    """Number of the step since the buffers were empty, from 1."""
    rate: float
    decay: Vector
    """Weight decay of each parameter: L2 with sgd, decoupled with adamw."""
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 1.0
    """Factor by which the gradient is multiplied."""


def optimizer_step(state: OptimizerState, gradient: Vector, step: StepSettings) -> OptimizerState:
    """The state after a step.

    Args:
        gradient: Gradient of the loss before clipping.
    """
    theta, g = state.parameters, step.clip * gradient
    if step.optimizer == "sgd":
        g = g + step.decay * theta
        if step.momentum == 0:
            return OptimizerState(theta - step.rate * g, state.first, state.second)
        buffer = step.momentum * state.first + _share(step) * g
        move = g + step.momentum * buffer if step.nesterov else buffer
        return OptimizerState(theta - step.rate * move, buffer, state.second)
    b1, b2 = step.betas
    first, second = b1 * state.first + (1 - b1) * g, b2 * state.second + (1 - b2) * g**2
    hat, root = first / (1 - b1**step.number), (second / (1 - b2**step.number)).sqrt()
    theta = (1 - step.rate * step.decay) * theta - step.rate * hat / (root + step.eps)
    return OptimizerState(theta, first, second)


def tangent_step(
    tangent: OptimizerState, state: OptimizerState, gradient: Vector, curvature: Curvature, step: StepSettings
) -> OptimizerState:
    """The tangent after a step: the derivative of the step at `state`, applied to `tangent`."""
    moved = step.clip * curvature(tangent.parameters)
    if step.optimizer == "sgd":
        moved = moved + step.decay * tangent.parameters
        if step.momentum == 0:
            return OptimizerState(tangent.parameters - step.rate * moved, tangent.first, tangent.second)
        buffer = step.momentum * tangent.first + _share(step) * moved
        move = moved + step.momentum * buffer if step.nesterov else buffer
        return OptimizerState(tangent.parameters - step.rate * move, buffer, tangent.second)
    b1, b2 = step.betas
    adam = _adam_terms(state, gradient, step)
    first = b1 * tangent.first + (1 - b1) * moved
    second = b2 * tangent.second + 2 * (1 - b2) * adam.gradient * moved
    kept = (1 - step.rate * step.decay) * tangent.parameters
    theta = kept - step.rate * (first * adam.by_first + second * adam.by_second)
    return OptimizerState(theta, first, second)


def adjoint_step(
    adjoint: OptimizerState, state: OptimizerState, gradient: Vector, curvature: Curvature, step: StepSettings
) -> OptimizerState:
    """The adjoint before a step: the transposed derivative of the step at `state`, applied to the adjoint after it."""
    a = adjoint.parameters
    if step.optimizer == "sgd":
        if step.momentum == 0:
            toward, buffer = -step.rate * a, adjoint.first
        else:
            full = adjoint.first - step.rate * (step.momentum if step.nesterov else 1.0) * a
            toward = _share(step) * full - (step.rate * a if step.nesterov else 0)
            buffer = step.momentum * full
        theta = a + step.clip * curvature(toward) + step.decay * toward
        return OptimizerState(theta, buffer, adjoint.second)
    b1, b2 = step.betas
    adam = _adam_terms(state, gradient, step)
    first = adjoint.first - step.rate * a * adam.by_first
    second = adjoint.second - step.rate * a * adam.by_second
    toward = (1 - b1) * first + 2 * (1 - b2) * adam.gradient * second
    theta = (1 - step.rate * step.decay) * a + step.clip * curvature(toward)
    return OptimizerState(theta, b1 * first, b2 * second)


def consumed_gradient(before: Vector, after: Vector, beta: float) -> Vector:
    """The gradient that Adam consumed, from its first moments before and after a step, whatever clipping did."""
    return (after - beta * before) / (1 - beta)


@dataclass(frozen=True)
class _AdamTerms:
    """Derivatives of Adam's direction by the moments after the step, and the gradient that it consumed."""

    gradient: Vector
    by_first: Vector
    by_second: Vector


def _adam_terms(state: OptimizerState, gradient: Vector, step: StepSettings) -> _AdamTerms:
    b1, b2 = step.betas
    g = step.clip * gradient
    first, second = b1 * state.first + (1 - b1) * g, b2 * state.second + (1 - b2) * g**2
    c1, c2 = 1 - b1**step.number, 1 - b2**step.number
    hat, root = first / c1, (second / c2).sqrt()
    denominator = root + step.eps
    # Where the second moment is 0 the direction does not depend on it.
    slope = torch.where(root > 0, hat / (2 * root.clamp(min=1e-300) * denominator**2), torch.zeros_like(root))
    return _AdamTerms(g, 1 / (c1 * denominator), -slope / c2)


def _share(step: StepSettings) -> float:
    """Share of the gradient that enters the momentum buffer; PyTorch does not dampen the first one."""
    return 1.0 if step.number == 1 else 1 - step.dampening
