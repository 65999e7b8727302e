"""Re-weight attention: multiply the attention to chosen tokens by k and normalise again (PASTA, arXiv:2311.02262)."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.interventions.base import Intervention, InterventionKind


@dataclass(frozen=True, eq=False)
class Reweight(Intervention):
    """Multiply the attention weights on the chosen tokens by `factor` and normalise; 0 hides the tokens.

    Implemented by adding log(factor) to the scores before the softmax.
    """

    factor: float
    seed: int | None = field(default=None)
    """Of the control; None for the edit itself."""
    kind: ClassVar[InterventionKind] = "attention"

    def __post_init__(self) -> None:
        if not math.isfinite(self.factor) or self.factor < 0:
            raise BadInput(f"`factor` must be a finite number from 0 on, got {self.factor}.")

    def __call__(
        self, h: Float[Tensor, "batch head query key"], mask: Bool[Tensor, "batch key"] | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """On scores before the softmax, or on the mask that is added to them; `mask` chooses the key tokens."""
        if self.is_noop or mask is None:
            return h
        least = torch.finfo(h.dtype).min
        shift = math.log(self.factor) if self.factor > 0 else least
        # Masked keys stay masked, whatever the factor.
        raised = torch.where(h <= least / 2, h, (h + shift).clamp(min=least))
        return torch.where(mask[:, None, None], raised, h)

    @property
    def is_noop(self) -> bool:
        return self.factor == 1

    def null(self, seed: int = 0) -> "Reweight":
        """The same factor on as many random tokens of each row."""
        return Reweight(self.factor, seed)

    def reweighted_tokens(self, tokens: Bool[Tensor, " token"], row: int = 0) -> Bool[Tensor, " token"]:
        """The given tokens of a row, or for the control as many random ones."""
        if self.seed is None:
            return tokens
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(1000003 * self.seed + row))
        return tokens[order.to(tokens.device)]
