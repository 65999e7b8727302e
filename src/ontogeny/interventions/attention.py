"""Re-weight attention: chosen tokens get k times the attention, and the rest makes room (arXiv:2311.02262, PASTA)."""

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
    """Each pattern's weight on the chosen tokens times `factor`, normalised again.

    Adding log k to a score before the softmax is exactly that. 0 takes the tokens out of sight.
    """

    factor: float
    seed: int | None = field(default=None)
    """Set on the control only."""
    kind: ClassVar[InterventionKind] = "attention"

    def __post_init__(self) -> None:
        if not math.isfinite(self.factor) or self.factor < 0:
            raise BadInput(f"attention can be multiplied with a finite number from 0 on, not with {self.factor}.")

    def __call__(
        self, h: Float[Tensor, "batch head query key"], mask: Bool[Tensor, "batch key"] | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """On scores before the softmax, or on the mask that is added to them; `mask` chooses the tokens that are looked at."""
        if self.nothing or mask is None:
            return h
        least = torch.finfo(h.dtype).min
        shift = math.log(self.factor) if self.factor > 0 else least
        # What a query may not see stays unseen, whatever the factor.
        raised = torch.where(h <= least / 2, h, (h + shift).clamp(min=least))
        return torch.where(mask[:, None, None], raised, h)

    @property
    def nothing(self) -> bool:
        return self.factor == 1

    def null(self, seed: int = 0) -> "Reweight":
        """The same factor on as many tokens of each row, drawn at random."""
        return Reweight(self.factor, seed)

    def chosen(self, tokens: Bool[Tensor, " token"], row: int = 0) -> Bool[Tensor, " token"]:
        """The tokens of a row that are meant: those given, or on the control as many others, drawn at random."""
        if self.seed is None:
            return tokens
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(1000003 * self.seed + row))
        return tokens[order.to(tokens.device)]
