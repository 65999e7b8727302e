"""Standardised activations in their principal axes: exact, with at most min(example, d) columns, shared by all label sets.

These axes preserve ‖w‖ and so an L2 penalty. The second moments are diagonal, which makes ridge regression a division and the Newton
steps of logistic regression cheap.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.linalg.matmul import matmul


@dataclass(frozen=True)
class PrincipalAxes:
    """Coordinates in the principal axes, and the map back to raw activations."""

    features: Float[Tensor, "site example r"]
    """Coordinates of the standardised activations; columns are orthogonal."""
    squared_norms: Float[Tensor, "site r"]
    """Squared norm of each column."""
    to_raw_weights: Float[Tensor, "site d r"]
    """Maps weights on the coordinates to weights on raw activations."""
    mean: Float[Tensor, "site d"]

    @classmethod
    def of(cls, x: Float[Tensor, "site example d"], *, standardise: bool = True) -> "PrincipalAxes":
        """Centre and, unless `standardise` is False, scale each feature."""
        standardised = StandardisedFeatures.of(x, standardise=standardise)
        z, inverse, mean = standardised.features, standardised.inverse_scale, standardised.mean
        if x.shape[1] < x.shape[2]:
            return cls._narrow(z, inverse, mean)
        axes = torch.linalg.eigh(matmul(z.mT, z))[1].flip(2)
        features = matmul(z, axes)
        return cls(features, features.square().sum(1), inverse[:, :, None] * axes, mean)

    @classmethod
    def _narrow(cls, z: Tensor, inverse: Tensor, mean: Tensor) -> "PrincipalAxes":
        """For fewer examples than dimensions: axes from the Gram matrix of the examples, in float64 since it squares them."""
        wide = z.double()
        power, u = (t.flip(-1) for t in torch.linalg.eigh(wide @ wide.mT))
        keep = power > 1e-12 * power[:, :1]
        s = torch.where(keep, power, 0).clamp(min=0).sqrt()
        axes = wide.mT @ (u * torch.where(keep, 1 / s, 0)[:, None])
        features = (u * s[:, None]).to(z)
        return cls(features, s.square().to(z), (inverse[:, :, None] * axes).to(z), mean)

    def to_raw(
        self, w: Float[Tensor, "site r k"], intercept: Float[Tensor, "site k"]
    ) -> tuple[Float[Tensor, "site d k"], Float[Tensor, "site k"]]:
        """Direction and bias for the raw activations."""
        return unscale_direction(self.to_raw_weights.to(w) @ w, intercept, self.mean)


@dataclass(frozen=True)
class StandardisedFeatures:
    """Standardised activations, and the map back to raw activations."""

    features: Float[Tensor, "site example d"]
    """Mean 0 and mean square 1; constant features are 0."""
    inverse_scale: Float[Tensor, "site d"]
    """One over the scale."""
    mean: Float[Tensor, "site d"]

    @classmethod
    def of(cls, x: Float[Tensor, "site example d"], *, standardise: bool = True) -> "StandardisedFeatures":
        """Centre and, unless `standardise` is False, scale each feature."""
        # In place on one copy: allocating memory costs more than the arithmetic.
        mean = x.mean(1)
        z = x - mean[:, None]
        scale = z.square().mean(1).sqrt()
        # The spread of a constant feature is a rounding error: give it no weight rather than a huge one.
        constant = scale <= 10 * torch.finfo(x.dtype).eps * mean.abs()
        inverse = torch.where(constant, 0, 1 / scale if standardise else torch.ones_like(scale))
        return cls(z.mul_(inverse[:, None]), inverse, mean)

    def to_raw(
        self, w: Float[Tensor, "site d k"], intercept: Float[Tensor, "site k"]
    ) -> tuple[Float[Tensor, "site d k"], Float[Tensor, "site k"]]:
        """Direction and bias for the raw activations."""
        return unscale_direction(self.inverse_scale.to(w)[:, :, None] * w, intercept, self.mean)


def unscale_direction(
    direction: Float[Tensor, "site d k"], intercept: Float[Tensor, "site k"], mean: Float[Tensor, "site d"]
) -> tuple[Float[Tensor, "site d k"], Float[Tensor, "site k"]]:
    """Direction and bias for the activations before centring."""
    bias = intercept - (mean.double()[:, :, None] * direction.double()).sum(1).to(intercept)
    return direction.to(mean), bias.to(mean)
