"""Rank-one edit of a weight: change the output of a linear map for one key (as in ROME, arXiv:2202.05262)."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ontogeny.direction import random_unit_vector
from ontogeny.interventions.base import Intervention, InterventionKind


@dataclass(frozen=True, eq=False)
class RankOne(Intervention):
    """`W + k vᵀ` for a map `x W`: the input's projection on the key times the value is added to the output."""

    key: Float[Tensor, " inside"]
    value: Float[Tensor, " d"]
    kind: ClassVar[InterventionKind] = "weight"

    def __call__(self, h: Float[Tensor, "inside d"], mask: Tensor | None = None) -> Float[Tensor, "inside d"]:
        return h if self.is_noop else h + self.key.to(h)[:, None] * self.value.to(h)

    @property
    def is_noop(self) -> bool:
        return not (self.key.any() and self.value.any())

    @property
    def width(self) -> int:
        return len(self.value)

    def null(self, seed: int = 0) -> "RankOne":
        """A random edit of the same Frobenius norm."""
        key = random_unit_vector(len(self.key), 2 * seed).to(self.key) * self.key.norm()
        return RankOne(key, random_unit_vector(len(self.value), 2 * seed + 1).to(self.value) * self.value.norm())
