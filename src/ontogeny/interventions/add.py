"""Add a vector to the activations: steering. Sources: arXiv:2312.06681 (CAA), arXiv:2402.19465 (the tracing paper)."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ontogeny.direction import Direction, random_unit_vector
from ontogeny.errors import BadInput
from ontogeny.interventions.base import Intervention, as_vector


@dataclass(frozen=True, eq=False, init=False)
class Add(Intervention):
    """`h + alpha · v`. The product is stored, so `Add(a) >> Add(b) == Add(a + b)`; with alpha 0 no hook is installed."""

    shift: Float[Tensor, " d"]

    def __init__(self, shift: Direction | Float[Tensor, " d"], alpha: float = 1.0) -> None:
        if not math.isfinite(alpha):
            raise BadInput(f"`alpha` must be a finite number, got {alpha}: try 1, or 0 for no edit.")
        vector = as_vector(shift, "Add")
        object.__setattr__(self, "shift", vector if alpha == 1.0 else alpha * vector)
        self.at_site_of(shift)

    def edit(self, h: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        return h + self.shift.to(h)

    @property
    def is_noop(self) -> bool:
        return not self.shift.any()

    @property
    def width(self) -> int:
        return len(self.shift)

    def null(self, seed: int = 0) -> "Add":
        """A random vector of equal norm."""
        return Add(random_unit_vector(len(self.shift), seed).to(self.shift) * self.shift.norm())

    def to(self, like: Tensor) -> "Add":
        return Add(self.shift.to(like))

    def __rshift__(self, after: Intervention) -> Intervention:
        if isinstance(after, Add) and after.width == self.width:
            added, sites = Add(self.shift + after.shift), {self.site, after.site} - {None}
            object.__setattr__(added, "_site", sites.pop() if len(sites) == 1 else None)
            return added
        return super().__rshift__(after)
