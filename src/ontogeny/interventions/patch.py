"""Put something else in the place of an activation: zero, or what was seen elsewhere (patching, arXiv:2202.05262)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.interventions.base import Intervention, apply_mask


@dataclass(frozen=True, eq=False)
class Zero(Intervention):
    """Zeros: a head, a neuron layer or a whole sub-layer is taken out."""

    def __call__(
        self, h: Float[Tensor, "*rows d"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows d"]:
        return apply_mask(mask, torch.zeros_like(h), h)


@dataclass(frozen=True, eq=False)
class Patch(Intervention):
    """Other activations in the place of these.

    One vector goes to every token; rows go, in order, to the tokens where the mask is True, so padding cannot shift them.
    """

    values: Float[Tensor, "#n d"] | Float[Tensor, " d"]

    def __call__(
        self, h: Float[Tensor, "*rows d"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows d"]:
        if self.values.ndim == 1:
            return apply_mask(mask, self.values.to(h).expand_as(h), h)
        inside = torch.ones(h.shape[:-1], dtype=torch.bool, device=h.device) if mask is None else mask
        count = int(inside.sum())
        if count == 0:
            return h
        if count != len(self.values):
            raise BadInput(
                f"a patch of {len(self.values)} activations was put at {count} tokens. Give one vector, or one for each token."
            )
        changed = h.clone()
        changed[inside] = self.values.to(h)
        return changed

    @property
    def width(self) -> int:
        return self.values.shape[-1]
