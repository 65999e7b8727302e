"""Coherence of directions: the largest absolute cosine of each with another one, and its lowest possible maximum, the Welch bound."""

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput


def coherence(directions: Float[Tensor, "*batch direction d"]) -> Float[Tensor, "*batch direction"]:
    """Largest absolute cosine of each direction with another one, between 0 and 1; NaN for a zero direction.

    It is the entanglement measure of arXiv:2505.04741. Directions need no unit length.

    Raises:
        BadInput: fewer than two directions.
    """
    count = directions.shape[-2]
    if count < 2:
        raise BadInput(f"`directions` must be at least two, got {count}: coherence compares them.")
    unit = directions.double()
    unit = unit / unit.norm(dim=-1, keepdim=True)
    cosines = (unit @ unit.mT).abs().clamp(max=1)
    values: Tensor = cosines.masked_fill(torch.eye(count, dtype=torch.bool), -torch.inf).amax(-1)
    return values


def welch_bound(count: int, d: int) -> float:
    """Lower bound of the largest coherence of `count` directions in `d` dimensions; 0 where they can be orthogonal (Welch 1974)."""
    if count < 2 or d < 1:
        raise BadInput(f"`count` must be at least 2 and `d` at least 1, got {count} and {d}.")
    return ((count - d) / ((count - 1) * d)) ** 0.5 if count > d else 0.0
