"""Interventions on latents: clamp or scale one, or replace the activation by its reconstruction. The error of the autoencoder stays."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.interventions import Intervention
from ontogeny.sae.autoencoder import SparseAutoencoder, token_factor


@dataclass(frozen=True, eq=False)
class ClampLatent(Intervention):
    """`h + (value − zᵢ) Dᵢ`: give a latent the same value at every token. Its null moves each token as far in a random direction."""

    autoencoder: SparseAutoencoder
    latent: int
    value: float

    def __post_init__(self) -> None:
        check_latent(self.autoencoder, self.latent)
        if not math.isfinite(self.value):
            raise BadInput(f"`value` must be a finite number, got {self.value}: give one in units of the latent.")

    def edit(self, h: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        latents = self.autoencoder.encode(h)[..., self.latent]
        return _move(h, self.value - latents, self.autoencoder, self.latent)

    @property
    def width(self) -> int:
        return self.autoencoder.width


@dataclass(frozen=True, eq=False)
class ScaleLatent(Intervention):
    """`h + (factor − 1) zᵢ Dᵢ`: multiply a latent. Tokens at which it does not fire stay as they are."""

    autoencoder: SparseAutoencoder
    latent: int
    factor: float

    def __post_init__(self) -> None:
        check_latent(self.autoencoder, self.latent)
        if not math.isfinite(self.factor):
            raise BadInput(f"`factor` must be a finite number, got {self.factor}: 0 removes the latent, 1 keeps it.")

    def edit(self, h: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        latents = self.autoencoder.encode(h)[..., self.latent]
        return _move(h, (self.factor - 1) * latents, self.autoencoder, self.latent)

    @property
    def is_noop(self) -> bool:
        return self.factor == 1

    @property
    def width(self) -> int:
        return self.autoencoder.width


@dataclass(frozen=True, eq=False)
class Reconstruct(Intervention):
    """The reconstruction in place of the activation."""

    autoencoder: SparseAutoencoder

    def edit(self, h: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        return self.autoencoder.reconstruct(h)

    @property
    def width(self) -> int:
        return self.autoencoder.width


def check_latent(autoencoder: SparseAutoencoder, latent: int) -> None:
    """Raise BadInput if an autoencoder has no such latent."""
    if not 0 <= latent < autoencoder.latents:
        raise BadInput(f"`latent` must be from 0 to {autoencoder.latents - 1}, got {latent}: choose another one.")


def _move(h: Tensor, change: Tensor, autoencoder: SparseAutoencoder, latent: int) -> Tensor:
    step = change[..., None] * autoencoder.decoder[latent].to(change)
    if autoencoder.token_scale:
        step = step / token_factor(h.to(step))
    return (h + step).to(h)
