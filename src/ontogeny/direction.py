"""A direction: what was learned, a vector at a site that says where it comes from; it has algebra."""

from dataclasses import dataclass, field, replace
from typing import Self

from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.sites import Site


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector in the space of one site, pointing to the positive class."""

    vector: Float[Tensor, " d"]
    site: Site
    origin: str
    """Where it was learned: `truth@checkpoint-500/mass_mean`."""
    scale: str = "raw"
    """What its length means: `gap` (distance of the class means), `unit`, `weight` (a probe's log-odds per unit), or `raw`."""
    position: str = "last"
    facts: dict[str, float] = field(default_factory=dict)
    """What else the fit kept: gap, std, strength, …"""

    def unit(self) -> Self:
        """The same direction with length 1."""
        return replace(self, vector=self.vector / self.vector.norm(), scale="unit")

    def cosine(self, other: Self) -> float:
        """Cosine of the angle to another direction, in [-1, 1]; NaN if either is zero."""
        self._fits(other)
        return float(self.vector @ other.vector / (self.vector.norm() * other.vector.norm()))

    def __mul__(self, factor: float) -> Self:
        return replace(self, vector=self.vector * factor, scale="raw")

    __rmul__ = __mul__

    def __neg__(self) -> Self:
        return self * -1.0

    def __add__(self, other: Self) -> Self:
        self._fits(other)
        return replace(
            self, vector=self.vector + other.vector, origin=f"({self.origin} + {other.origin})", scale="raw", facts={}
        )

    def __sub__(self, other: Self) -> Self:
        self._fits(other)
        return replace(
            self, vector=self.vector - other.vector, origin=f"({self.origin} - {other.origin})", scale="raw", facts={}
        )

    def _fits(self, other: Self) -> None:
        if self.vector.shape != other.vector.shape:
            raise BadInput(
                f"directions of {len(self.vector)} and {len(other.vector)} dimensions cannot be combined "
                f"({self.origin} at {self.site}, {other.origin} at {other.site}). Take them from sites of one width."
            )
