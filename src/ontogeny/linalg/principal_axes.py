"""The standardised activations in their own principal axes: exact, at most min(example, d) columns, shared by all label sets.

In these axes ‖w‖ is unchanged, so an L2 penalty is too, and the second moments are diagonal, which is what makes ridge a division
and the Newton steps of a logistic regression short.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.linalg.matmul import matmul


@dataclass(frozen=True)
class PrincipalAxes:
    features: Float[Tensor, "site example r"]
    """Coordinates of the standardised activations; columns are orthogonal."""
    power: Float[Tensor, "site r"]
    """Squared norm of each column."""
    back: Float[Tensor, "site d r"]
    """Coordinates -> standardised space, then over the scale: takes weights to the raw activation space."""
    mean: Float[Tensor, "site d"]

    @classmethod
    def of(cls, x: Float[Tensor, "site example d"], *, standardise: bool = True) -> "PrincipalAxes":
        """`standardise=False` leaves the scale of each feature as it is; centring is free, for the constant is not penalised."""
        given = StandardisedFeatures.of(x, standardise=standardise)
        z, inverse, mean = given.features, given.inverse, given.mean
        if x.shape[1] < x.shape[2]:
            return cls._narrow(z, inverse, mean)
        axes = torch.linalg.eigh(matmul(z.mT, z))[1].flip(2)
        features = matmul(z, axes)
        return cls(features, features.square().sum(1), inverse[:, :, None] * axes, mean)

    @classmethod
    def _narrow(cls, z: Tensor, inverse: Tensor, mean: Tensor) -> "PrincipalAxes":
        """Fewer examples than dimensions: the axes from the examples' Gram matrix, in float64 because it squares them."""
        wide = z.double()
        power, u = (t.flip(-1) for t in torch.linalg.eigh(wide @ wide.mT))
        keep = power > 1e-12 * power[:, :1]
        s = torch.where(keep, power, 0).clamp(min=0).sqrt()
        axes = wide.mT @ (u * torch.where(keep, 1 / s, 0)[:, None])
        features = (u * s[:, None]).to(z)
        return cls(features, s.square().to(z), (inverse[:, :, None] * axes).to(z), mean)

    def raw(
        self, w: Float[Tensor, "site r k"], intercept: Float[Tensor, "site k"]
    ) -> tuple[Float[Tensor, "site d k"], Float[Tensor, "site k"]]:
        """Direction and bias for the raw activations."""
        return unscale_direction(self.back.to(w) @ w, intercept, self.mean)


@dataclass(frozen=True)
class StandardisedFeatures:
    features: Float[Tensor, "site example d"]
    """Mean 0, and mean square 1 but for features without spread, which are 0."""
    inverse: Float[Tensor, "site d"]
    """One over the scale."""
    mean: Float[Tensor, "site d"]

    @classmethod
    def of(cls, x: Float[Tensor, "site example d"], *, standardise: bool = True) -> "StandardisedFeatures":
        """`standardise=False` leaves the scale of each feature as it is; centring is free, for the constant is not penalised."""
        # In place on one copy: fresh memory costs more here than the arithmetic.
        mean = x.mean(1)
        z = x - mean[:, None]
        scale = z.square().mean(1).sqrt()
        # A constant feature has only rounding for a spread: give it no weight rather than a huge one.
        constant = scale <= 10 * torch.finfo(x.dtype).eps * mean.abs()
        inverse = torch.where(constant, 0, 1 / scale if standardise else torch.ones_like(scale))
        return cls(z.mul_(inverse[:, None]), inverse, mean)

    def raw(
        self, w: Float[Tensor, "site d k"], intercept: Float[Tensor, "site k"]
    ) -> tuple[Float[Tensor, "site d k"], Float[Tensor, "site k"]]:
        """Direction and bias for the raw activations."""
        return unscale_direction(self.inverse.to(w)[:, :, None] * w, intercept, self.mean)


def unscale_direction(
    direction: Float[Tensor, "site d k"], intercept: Float[Tensor, "site k"], mean: Float[Tensor, "site d"]
) -> tuple[Float[Tensor, "site d k"], Float[Tensor, "site k"]]:
    """Direction and bias for the activations before `mean` was taken off."""
    bias = intercept - (mean.double()[:, :, None] * direction.double()).sum(1).to(intercept)
    return direction.to(mean), bias.to(mean)
