"""Replace activations: by zeros, or by the activations of another run (patching, arXiv:2202.05262)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.interventions.base import Intervention, apply_mask


@dataclass(frozen=True, eq=False)
class Zero(Intervention):
    """Zero ablation of a head, of neurons or of a sub-layer."""

    def edit(self, h: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        return torch.zeros_like(h)


@dataclass(frozen=True, eq=False)
class Patch(Intervention):
    """Replace activations by given ones.

    One vector goes to every token; rows go, in order, to the tokens where the mask is True, so that padding cannot shift them.
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
            raise BadInput(f"a patch must have one vector, or one for each of {count} tokens, got {len(self.values)}.")
        changed = h.clone()
        changed[inside] = self.values.to(h)
        return changed

    @property
    def width(self) -> int:
        return self.values.shape[-1]
