"""Tiers that need only checkpoints at the ends of stages: telescoping, endpoint, subtraction, addition, linearised.

They are exact statements about weights on disk, and estimates of the effect of a stage: they answer *updates skipped*, as if later stages
had moved the weights by the same amounts. `activation_difference` compares a stage's own data with a concept's direction.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ontogeny.errors import BadInput

Weights = Mapping[str, Tensor]
Values = NDArray[np.float64]
"""A behaviour of each example; the behaviour is their mean."""
ValueOfWeights = Callable[[Weights], Values]
GradientOfWeights = Callable[[Weights], Weights]


@dataclass(frozen=True)
class CheckpointTier:
    """An estimator: its name and its function."""

    name: str
    meaning: str


CHECKPOINT_TIERS = (
    CheckpointTier(
        "telescoping", "sum of γ(next) − γ(this) over the stage's checkpoints: the change while the stage ran"
    ),
    CheckpointTier("endpoint", "γ(end of stage) − γ(start of stage)"),
    CheckpointTier("subtraction", "γ(final) − γ(final − Δ), where Δ is the stage's change of the weights"),
    CheckpointTier("addition", "γ(initial + Δ) − γ(initial)"),
    CheckpointTier("linearised", "gradient of γ at the final weights times Δ"),
)


def checkpoint_scores(
    ends: Sequence[Weights],
    value: ValueOfWeights,
    gradient: GradientOfWeights | None = None,
    *,
    inside: Sequence[Sequence[Values]] | None = None,
) -> dict[str, list[Values]]:
    """Estimated effect of each stage on each example, by each tier; `linearised` has one number for all examples.

    Args:
        ends: Weights before the first stage and after each stage; at most three are held at a time.
        value: The behaviour at given weights.
        gradient: Gradient of its mean, for `linearised`; None leaves this tier out.
        inside: For each stage the behaviour at its checkpoints in order, from its start to its end, for `telescoping`.

    Raises:
        BadInput: fewer than two ends, or weights of different shapes.
    """
    if len(ends) < 2:
        raise BadInput(f"`ends` must hold the weights before and after a stage, got {len(ends)}: add checkpoints.")
    initial, final, before = ends[0], ends[-1], ends[0]
    first, last = value(initial), value(final)
    slope = gradient(final) if gradient is not None else None
    scores: dict[str, list[Values]] = {tier.name: [] for tier in CHECKPOINT_TIERS}
    earlier = first
    for index in range(1, len(ends)):
        after = ends[index]
        check_same_shapes(before, after)
        delta = weight_difference(after, before)
        current = last if index == len(ends) - 1 else value(after)
        scores["endpoint"].append(current - earlier)
        scores["subtraction"].append(last - value(weight_sum(final, delta, -1.0)))
        scores["addition"].append(value(weight_sum(initial, delta, 1.0)) - first)
        if slope is not None:
            scores["linearised"].append(np.array([weight_dot(slope, delta)]))
        before, earlier = after, current
    for path in inside or ():
        moves = [b - a for a, b in itertools.pairwise(path)]
        scores["telescoping"].append(np.sum(moves, axis=0))
    return {name: values for name, values in scores.items() if values}


def activation_difference(
    stage_before: Float[Tensor, "example d"], stage_after: Float[Tensor, "example d"], direction: Float[Tensor, " d"]
) -> float:
    """Cosine of a concept's direction with the mean change of activations on the stage's own data (arXiv:2602.11079)."""
    change = (stage_after.double() - stage_before.double()).mean(0)
    scale = change.norm() * direction.double().norm()
    return float(change @ direction.double() / scale) if scale > 0 else 0.0


def weight_difference(after: Weights, before: Weights) -> dict[str, Tensor]:
    """after − before, in float32."""
    return {name: after[name].float() - before[name].float() for name in after}


def weight_sum(weights: Weights, delta: Weights, factor: float) -> dict[str, Tensor]:
    """weights + factor · delta, in the type of the weights."""
    return {name: (w.float() + factor * delta[name].float()).to(w.dtype) for name, w in weights.items()}


def weight_dot(a: Weights, b: Weights) -> float:
    """Inner product over the tensors that both have."""
    return float(sum(a[name].double().flatten() @ b[name].double().flatten() for name in a if name in b))


def check_same_shapes(first: Weights, other: Weights) -> None:
    """Raise BadInput unless both have the same tensors with the same shapes."""
    names = first.keys() ^ other.keys()
    shapes = {n for n in first.keys() & other.keys() if first[n].shape != other[n].shape}
    if problem := sorted(names) or sorted(shapes):
        raise BadInput(
            f"the checkpoints of all stages must have the same tensors, got different ones at {problem[0]}: compare stages of one "
            "architecture."
        )


def parameters_of(network: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of a network's parameters; tied ones once."""
    return {name: p.detach().clone() for name, p in network.named_parameters()}
