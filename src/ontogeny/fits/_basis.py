"""The standardised activations in their own principal axes: exact, at most min(example, d) columns, shared by all label sets.

In these axes ‖w‖ is unchanged, so an L2 penalty is too, and the second moments are diagonal, which is what makes ridge a division
and the Newton steps of a logistic regression short.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.fits._standardised import Standardised, unscaled
from ontogeny.products import product


@dataclass(frozen=True)
class Basis:
    features: Float[Tensor, "site example r"]
    """Coordinates of the standardised activations; columns are orthogonal."""
    power: Float[Tensor, "site r"]
    """Squared norm of each column."""
    back: Float[Tensor, "site d r"]
    """Coordinates -> standardised space, then over the scale: takes weights to the raw activation space."""
    mean: Float[Tensor, "site d"]

    @classmethod
    def of(cls, x: Float[Tensor, "site example d"], *, standardise: bool = True) -> "Basis":
        """`standardise=False` leaves the scale of each feature as it is; centring is free, for the constant is not penalised."""
        given = Standardised.of(x, standardise=standardise)
        z, inverse, mean = given.features, given.inverse, given.mean
        if x.shape[1] < x.shape[2]:
            return cls._narrow(z, inverse, mean)
        axes = torch.linalg.eigh(product(z.mT, z))[1].flip(2)
        features = product(z, axes)
        return cls(features, features.square().sum(1), inverse[:, :, None] * axes, mean)

    @classmethod
    def _narrow(cls, z: Tensor, inverse: Tensor, mean: Tensor) -> "Basis":
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
        return unscaled(self.back.to(w) @ w, intercept, self.mean)
