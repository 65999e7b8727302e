"""A direction: what was learned, a vector at a site that says where it comes from; it has algebra."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput, unknown_name
from ontogeny.sites import Site

DIRECTION_SCALES = ("unit", "std", "gap", "weight", "raw")
"""What the length of a vector may mean."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector in the space of one site, pointing to the positive class."""

    vector: Float[Tensor, " d"]
    site: Site
    origin: str
    """Where it was learned: `truth@checkpoint-500/mass_mean`."""
    scale: str = "raw"
    """What its length means: `gap` (distance of the class means), `std` (spread of the projections), `unit`, `weight` (a probe's
    log-odds per unit), or `raw`."""
    position: str = "last"
    facts: dict[str, float] = field(default_factory=dict)
    """What else the fit kept: gap, std, strength, …"""
    sign: str = ""
    """What the positive end stands for: `true`, `toxic`, …"""
    tokenizer: str = ""
    """Fingerprint of the tokenizer of its model; empty where it is not known."""

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or not len(self.vector) or not torch.isfinite(self.vector).all():
            raise BadInput(
                f"the direction {self.origin} is no vector of finite numbers (shape {tuple(self.vector.shape)}). Fit it again."
            )
        if self.scale not in DIRECTION_SCALES:
            raise unknown_name("scale", self.scale, DIRECTION_SCALES)

    def unit(self) -> Self:
        """The same direction with length 1."""
        return replace(self, vector=self.vector / self._length(), scale="unit")

    def scaled(self, rule: str) -> Self:
        """The same direction with the length of a rule: `unit`, `std` or `gap`, as the fit measured them.

        Raises:
            BadInput: no such rule, or the fit kept no such fact.
        """
        if rule not in ("unit", "std", "gap"):
            raise unknown_name("scale rule", rule, ("unit", "std", "gap"))
        if rule == "unit":
            return self.unit()
        if not math.isfinite(self.facts.get(rule, math.nan)):
            raise BadInput(
                f"{self.origin} does not say its {rule}; it knows {', '.join(self.facts) or 'no facts'}. "
                f"Take a direction of mass_mean, or multiply its unit() with a number of your own."
            )
        return replace(self, vector=self.vector / self._length() * self.facts[rule], scale=rule)

    def cosine(self, other: Self) -> float:
        """Cosine of the angle to another direction, in [-1, 1]; NaN if either is zero."""
        self._fits(other)
        return float(self.vector @ other.vector / (self.vector.norm() * other.vector.norm()))

    def along(self, other: Self) -> Self:
        """The part of it that lies along another direction."""
        self._fits(other)
        axis = other.vector / other._length()
        return self._combined((self.vector @ axis) * axis, f"({self.origin} along {other.origin})")

    def without(self, other: Self) -> Self:
        """The part of it that is orthogonal to another direction."""
        return self._combined(self.vector - self.along(other).vector, f"({self.origin} without {other.origin})")

    def random(self, seed: int) -> Self:
        """A random direction of the same length: what a direction that knows nothing does."""
        vector = random_unit_vector(len(self.vector), seed).to(self.vector) * self.vector.norm()
        return replace(
            self, vector=vector, origin=f"random({seed}) as long as {self.origin}", scale="raw", facts={}, sign=""
        )

    def at(self, site: Site) -> Self:
        """The same vector at another site, on purpose."""
        return replace(self, site=site, origin=f"({self.origin} at {site})")

    def __mul__(self, factor: float) -> Self:
        return replace(self, vector=self.vector * factor, scale="raw")

    __rmul__ = __mul__

    def __neg__(self) -> Self:
        return replace(self * -1.0, sign=f"not {self.sign}" if self.sign else "")

    def __add__(self, other: Self) -> Self:
        self._same_site(other)
        return self._combined(self.vector + other.vector, f"({self.origin} + {other.origin})")

    def __sub__(self, other: Self) -> Self:
        self._same_site(other)
        return self._combined(self.vector - other.vector, f"({self.origin} - {other.origin})")

    def _combined(self, vector: Tensor, origin: str) -> Self:
        return replace(self, vector=vector, origin=origin, scale="raw", facts={}, sign="")

    def _length(self) -> Tensor:
        length: Tensor = self.vector.norm()
        if float(length) == 0:
            raise BadInput(f"{self.origin} is zero and points nowhere. Take a direction that was learned.")
        return length

    def _same_site(self, other: Self) -> None:
        self._fits(other)
        if self.site != other.site:
            raise BadInput(
                f"directions at {self.site} and {other.site} live in different spaces and cannot be added "
                f"({self.origin}, {other.origin}). Take one site, or move one on purpose with at()."
            )

    def _fits(self, other: Self) -> None:
        if self.vector.shape != other.vector.shape:
            raise BadInput(
                f"directions of {len(self.vector)} and {len(other.vector)} dimensions cannot be combined "
                f"({self.origin} at {self.site}, {other.origin} at {other.site}). Take them from sites of one width."
            )


def average_directions(directions: Sequence[Direction]) -> Direction:
    """Mean of the unit vectors, each turned to the side of the first: what several checkpoints or seeds agree on.

    Its length, at most 1, says how much they agree (fact `agreement`).
    """
    if not directions:
        raise BadInput("an average needs at least one direction, and none was given. Name the directions.")
    first = directions[0].unit()
    units = [d.unit().vector * (1.0 if first.cosine(d) >= 0 else -1.0) for d in directions]
    mean = torch.stack([u.to(first.vector) for u in units]).mean(0)
    origin = f"average of {len(directions)} from {first.origin}"
    return replace(first, vector=mean, origin=origin, scale="raw", facts={"agreement": float(mean.norm())})


def random_unit_vector(width: int, seed: int) -> Float[Tensor, " d"]:
    """A random vector of length 1."""
    # Salted: a direction that somebody drew from the bare seed must not meet itself as its control.
    drawn = torch.randn(
        width, generator=torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + 0x6A09E667) % 2**63)
    )
    unit: Tensor = drawn / drawn.norm()
    return unit
