"""Direction: a vector in the activation space of one site, with its origin and with vector algebra."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput, unknown_name
from ontogeny.notebook import rich_html
from ontogeny.sites import Site

DIRECTION_SCALES = ("unit", "std", "gap", "weight", "raw")
"""Meanings of a vector's length."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector in the space of one site, pointing to the positive class."""

    vector: Float[Tensor, " d"]
    site: Site
    origin: str
    """Concept, checkpoint and probe: `truth@checkpoint-500/mass_mean`."""
    scale: str = "raw"
    """Meaning of its length: `gap` (distance of the class means), `std` (standard deviation of the projections), `unit`,
    `weight` (a probe's log-odds per unit), or `raw`."""
    position: str = "last"
    facts: dict[str, float] = field(default_factory=dict)
    """Further statistics of the fit: gap, std, strength, …"""
    sign: str = ""
    """Class of the positive end: `true`, `toxic`, …"""
    tokenizer: str = ""
    """Fingerprint of its model's tokenizer; empty if unknown."""
    fitted_on: str = ""
    """Hash of the concept that it was fitted on with every group, none held out; empty if some were, or it is unknown."""

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or not len(self.vector) or not torch.isfinite(self.vector).all():
            raise BadInput(
                f"the direction {self.origin} must be a vector of finite numbers, got shape {tuple(self.vector.shape)}: fit it again."
            )
        if self.scale not in DIRECTION_SCALES:
            raise unknown_name("scale", self.scale, DIRECTION_SCALES)

    def _repr_html_(self) -> str:
        return rich_html("direction", self)

    def unit(self) -> Self:
        """The same direction with length 1."""
        return replace(self, vector=self.vector / self._length(), scale="unit")

    def scaled(self, rule: str) -> Self:
        """The same direction with length 1 (`unit`) or the `std` or `gap` that the fit measured.

        Raises:
            BadInput: there is no such rule, or the fit did not measure it.
        """
        if rule not in ("unit", "std", "gap"):
            raise unknown_name("scale rule", rule, ("unit", "std", "gap"))
        if rule == "unit":
            return self.unit()
        if not math.isfinite(self.facts.get(rule, math.nan)):
            raise BadInput(
                f"{self.origin} must have the fact {rule}, got {', '.join(self.facts) or 'no facts'}: "
                "take a direction of mass_mean, or multiply unit() by a number."
            )
        return replace(self, vector=self.vector / self._length() * self.facts[rule], scale=rule)

    def cosine(self, other: Self) -> float:
        """Cosine of the angle to another direction, in [-1, 1]; NaN if either is zero."""
        self._check_width(other)
        # Scaled first, so that the squares of very small or large vectors stay in range.
        a, b = (vector.double() / vector.abs().amax().double() for vector in (self.vector, other.vector))
        return float((a @ b / (a.norm() * b.norm())).clamp(-1, 1))

    def along(self, other: Self) -> Self:
        """The component along another direction."""
        self._check_width(other)
        axis = (other.vector / other._length()).to(self.vector)
        return self._combined((self.vector @ axis) * axis, f"({self.origin} along {other.origin})")

    def without(self, other: Self) -> Self:
        """The component orthogonal to another direction."""
        return self._combined(self.vector - self.along(other).vector, f"({self.origin} without {other.origin})")

    def random(self, seed: int) -> Self:
        """A random direction of equal norm, as a null baseline."""
        vector = random_unit_vector(len(self.vector), seed).to(self.vector) * self.vector.norm()
        return replace(
            self,
            vector=vector,
            origin=f"random({seed}) as long as {self.origin}",
            scale="raw",
            facts={},
            sign="",
            fitted_on="",
        )

    def at(self, site: Site) -> Self:
        """The same vector moved to another site."""
        return replace(self, site=site, origin=f"({self.origin} at {site})")

    def __mul__(self, factor: float) -> Self:
        sign = self.sign if factor > 0 else _opposite(self.sign) if factor < 0 else ""
        return replace(self, vector=self.vector * factor, scale="raw", sign=sign)

    __rmul__ = __mul__

    def __neg__(self) -> Self:
        return self * -1.0

    def __add__(self, other: Self) -> Self:
        self._check_site(other)
        return self._combined(self.vector + other.vector, f"({self.origin} + {other.origin})")

    def __sub__(self, other: Self) -> Self:
        self._check_site(other)
        return self._combined(self.vector - other.vector, f"({self.origin} - {other.origin})")

    def _combined(self, vector: Tensor, origin: str) -> Self:
        return replace(self, vector=vector, origin=origin, scale="raw", facts={}, sign="")

    def _length(self) -> Tensor:
        length: Tensor = self.vector.norm()
        if not 0 < float(length) < math.inf:  # the squares of small numbers are 0, those of large ones infinite
            length = self.vector.double().norm()
        if float(length) == 0:
            raise BadInput(f"{self.origin} must not be zero, since it then has no direction: take another one.")
        return length

    def _check_site(self, other: Self) -> None:
        self._check_width(other)
        if self.site != other.site:
            raise BadInput(
                f"directions must be at one site to be added, got {self.site} and {other.site} "
                f"({self.origin}, {other.origin}): move one with at()."
            )

    def _check_width(self, other: Self) -> None:
        if self.vector.shape != other.vector.shape:
            raise BadInput(
                f"directions must have one width, got {len(self.vector)} and {len(other.vector)} dimensions "
                f"({self.origin} at {self.site}, {other.origin} at {other.site}): take sites of one width."
            )


def _opposite(sign: str) -> str:
    """The class at the other end of a direction: `not true` of `true`, and back."""
    return sign.removeprefix("not ") if sign.startswith("not ") else f"not {sign}" if sign else ""


def average_directions(directions: Sequence[Direction]) -> Direction:
    """Mean of the unit vectors, each signed to agree with the first; its length, at most 1, is the fact `agreement`."""
    if not directions:
        raise BadInput("an average needs at least one direction, got none: name the directions.")
    first = directions[0].unit()
    units = [d.unit().vector * (1.0 if first.cosine(d) >= 0 else -1.0) for d in directions]
    mean = torch.stack([u.to(first.vector) for u in units]).mean(0)
    origin = f"average of {len(directions)} from {first.origin}"
    return replace(first, vector=mean, origin=origin, scale="raw", facts={"agreement": float(mean.norm())})


def random_unit_vector(width: int, seed: int) -> Float[Tensor, " d"]:
    """A random vector of length 1, the same for each seed."""
    # The seed is salted, so that a direction drawn from the bare seed differs from its control.
    salted = (seed * 0x9E3779B97F4A7C15 + 0x6A09E667) % 2**63
    vector = torch.randn(width, generator=torch.Generator().manual_seed(salted))
    unit: Tensor = vector / vector.norm()
    return unit
