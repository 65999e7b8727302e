"""Activations with mean 0 and mean square 1, and the way back to the raw ones; no labels are seen."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Standardised:
    features: Float[Tensor, "site example d"]
    """Mean 0, and mean square 1 but for features without spread, which are 0."""
    inverse: Float[Tensor, "site d"]
    """One over the scale."""
    mean: Float[Tensor, "site d"]

    @classmethod
    def of(cls, x: Float[Tensor, "site example d"], *, standardise: bool = True) -> "Standardised":
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
        return unscaled(self.inverse.to(w)[:, :, None] * w, intercept, self.mean)


def unscaled(
    direction: Float[Tensor, "site d k"], intercept: Float[Tensor, "site k"], mean: Float[Tensor, "site d"]
) -> tuple[Float[Tensor, "site d k"], Float[Tensor, "site k"]]:
    """Direction and bias for the activations before `mean` was taken off."""
    bias = intercept - (mean.double()[:, :, None] * direction.double()).sum(1).to(intercept)
    return direction.to(mean), bias.to(mean)
