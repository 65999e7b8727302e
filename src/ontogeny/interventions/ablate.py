"""Edits along a direction: ablate it (arXiv:2406.11717), erase a concept (LEACE, arXiv:2306.03819), clamp or cap the projection."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.interventions.base import Intervention, as_unit_vector
from ontogeny.probes.leace import Eraser


@dataclass(frozen=True, eq=False)
class Ablate(Intervention):
    """`h − U Uᵀ h`: remove the component in the span of the directions; idempotent."""

    basis: Float[Tensor, "d k"]
    """Orthonormal. `Ablate.of` computes it from directions."""

    @classmethod
    def of(cls, *directions: Direction | Float[Tensor, " d"]) -> "Ablate":
        """From one direction or several, of any length and angle.

        Raises:
            BadInput: no directions, of different widths, or linearly dependent ones.
        """
        if not directions:
            raise BadInput("an ablation needs at least one direction, got none: name one.")
        axes = [as_unit_vector(one, "Ablate") for one in directions]
        if len({len(axis) for axis in axes}) > 1:
            raise BadInput(
                f"ablated directions must have one width, got {sorted({len(a) for a in axes})}: take directions of one site."
            )
        stacked = torch.stack(axes, 1).double()
        basis, values, _ = torch.linalg.svd(stacked, full_matrices=False)
        if float(values[-1]) < 1e-6:
            raise BadInput(
                f"ablated directions must be linearly independent, the {len(axes)} given are not: remove the redundant ones."
            )
        return cls(basis.to(axes[0])).at_site_of(*directions)

    def edit(self, h: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        basis = self.basis.to(h)
        return h - (h @ basis) @ basis.T

    @property
    def width(self) -> int:
        return self.basis.shape[0]


@dataclass(frozen=True, eq=False)
class Clamp(Intervention):
    """`h + (value − h·u) u`: give every token the same projection on the direction."""

    axis: Float[Tensor, " d"]
    """Of length 1. `Clamp.to_value` computes it from a direction."""
    value: float

    @classmethod
    def to_value(cls, direction: Direction | Float[Tensor, " d"], value: float) -> "Clamp":
        """Along a direction of any length; `value` is in the units of the activations.

        Raises:
            BadInput: a value that is not finite, or a direction of zeros.
        """
        if not math.isfinite(value):
            raise BadInput(f"`value` must be a finite number, got {value}.")
        return cls(as_unit_vector(direction, "Clamp"), value).at_site_of(direction)

    def edit(self, h: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        axis = self.axis.to(h)
        return h + (self.value - h @ axis)[..., None] * axis

    @property
    def width(self) -> int:
        return len(self.axis)


@dataclass(frozen=True, eq=False)
class Cap(Intervention):
    """`h + (clip(h·u, low, high) − h·u) u`: keep the projection of every token in a range (activation capping, arXiv:2601.10387)."""

    axis: Float[Tensor, " d"]
    """Of length 1. `Cap.between` computes it from a direction."""
    low: float
    high: float

    @classmethod
    def between(
        cls, direction: Direction | Float[Tensor, " d"], low: float = -math.inf, high: float = math.inf
    ) -> "Cap":
        """Along a direction of any length; the ends are in the units of the activations, an infinite one does not cap.

        Raises:
            BadInput: an end that is not a number, a low end above the high one, or a direction of zeros.
        """
        if math.isnan(low) or math.isnan(high) or low > high or low == math.inf or high == -math.inf:
            raise BadInput(
                f"`low` must be a number below `high`, got {low} and {high}: leave one out for no cap on its side."
            )
        return cls(as_unit_vector(direction, "Cap"), low, high).at_site_of(direction)

    def edit(self, h: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        axis = self.axis.to(h)
        projection = h @ axis
        capped = projection.clamp(self.low, self.high)
        # Tokens inside the range keep their bits.
        return torch.where((capped == projection)[..., None], h, h + (capped - projection)[..., None] * axis)

    @property
    def is_noop(self) -> bool:
        return self.low == -math.inf and self.high == math.inf

    @property
    def width(self) -> int:
        return len(self.axis)


@dataclass(frozen=True, eq=False)
class Erase(Intervention):
    """`h − R Bᵀ (h − μ)`: afterwards no linear probe can read the concept that the eraser was fitted on."""

    removed: Float[Tensor, "d k"]
    readout: Float[Tensor, "d k"]
    mean: Float[Tensor, " d"]

    @classmethod
    def of(cls, eraser: Eraser, site: int = 0) -> "Erase":
        """The eraser of one site."""
        return cls(eraser.removed[site], eraser.readout[site], eraser.mean[site])

    def edit(self, h: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        # In the eraser's precision, since the readout is a difference of large numbers.
        read = (h.to(self.mean) - self.mean) @ self.readout
        return (h.to(self.mean) - read @ self.removed.T).to(h)

    @property
    def width(self) -> int:
        return len(self.mean)

    def to(self, like: Tensor) -> "Erase":
        device = like.device
        return Erase(self.removed.to(device), self.readout.to(device), self.mean.to(device))
