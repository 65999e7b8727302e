"""Interventions on the attention to chosen tokens: multiply it and normalise (PASTA, arXiv:2311.02262), or split-softmax."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.interventions.base import Intervention, InterventionKind


class AttentionIntervention(Intervention):
    """A change of the attention to chosen tokens; its control takes as many random tokens of each row."""

    kind: ClassVar[InterventionKind] = "attention"
    seed: int | None
    """Of the control; None for the edit itself."""

    def null(self, seed: int = 0) -> Self:
        """The same change for as many random tokens of each row."""
        return replace(self, seed=seed)  # type: ignore[type-var]

    def without_seed(self) -> Self:
        """The edit itself, for tokens that its control has drawn."""
        return replace(self, seed=None)  # type: ignore[type-var]

    def reweighted_tokens(self, tokens: Bool[Tensor, " token"], row: int = 0) -> Bool[Tensor, " token"]:
        """The given tokens of a row, or for the control as many random ones."""
        if self.seed is None:
            return tokens
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(1000003 * self.seed + row))
        return tokens[order.to(tokens.device)]


@dataclass(frozen=True, eq=False)
class Reweight(AttentionIntervention):
    """Multiply the attention weights on the chosen tokens by `factor` and normalise; 0 hides the tokens.

    Implemented by adding log(factor) to the scores before the softmax.
    """

    factor: float
    seed: int | None = field(default=None)

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


@dataclass(frozen=True, eq=False)
class SplitSoftmax(AttentionIntervention):
    """Raise the share π of all attention that goes to the chosen tokens to π^k, after the softmax (arXiv:2402.10962).

    Inside the chosen tokens, and among the others, proportions stay; each row still sums to 1. With k = 1 nothing changes, with a smaller
    k the chosen tokens get more.
    """

    k: float
    seed: int | None = field(default=None)

    def __post_init__(self) -> None:
        if not math.isfinite(self.k) or self.k <= 0:
            raise BadInput(f"`k` must be a finite number above 0, got {self.k}: try 0.8, or 1 for no edit.")

    def __call__(
        self, h: Float[Tensor, "batch head query key"], mask: Bool[Tensor, "batch key"] | None = None
    ) -> Float[Tensor, "batch head query key"]:
        """On attention weights after the softmax; `mask` chooses the key tokens. Rows that see only chosen tokens, or none, stay."""
        if self.is_noop or mask is None:
            return h
        chosen = mask[:, None, None]
        zero = h.new_zeros(())
        share = torch.where(chosen, h, zero).sum(-1, keepdim=True)
        rest = torch.where(chosen, zero, h).sum(-1, keepdim=True)
        # From the smaller of the two sums, since the other one may be rounded to 1.
        log = torch.where(share < rest, share.log(), torch.log1p(-rest.clamp(max=0.999999)))
        raised, left = (self.k * log).exp(), -torch.expm1(self.k * log)
        changed = torch.where(chosen, h * (raised / share), h * (left / rest))
        return torch.where((share > 0) & (rest > 0), changed, h)

    @property
    def is_noop(self) -> bool:
        return self.k == 1
