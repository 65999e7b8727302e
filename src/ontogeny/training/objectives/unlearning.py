"""Unlearning losses: gradient ascent with a retain term, and NPO (arXiv:2404.05868)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ontogeny.errors import unknown_name
from ontogeny.training.batches import UnlearningBatch
from ontogeny.training.objectives.log_probs import (
    answer_log_probs,
    loss_mask,
    mean_loss,
    require_reference,
)


@dataclass(frozen=True)
class Unlearn:
    """Unlearning: lower the likelihood of the forget set and keep that of the retain set.

    `ascent`: minus the cross-entropy of the forget set. `npo`: -(2/β)·log σ(-β·log-ratio to the reference), which
    is ascent for β -> 0 and stays bounded where ascent diverges.
    """

    method: Literal["ascent", "npo"] = "npo"
    beta: float = 0.1
    forget: float = 1.0
    """Weight of the forget term."""
    retain: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in ("ascent", "npo"):
            raise unknown_name("unlearning method", self.method, ("ascent", "npo"))

    @property
    def needs_reference(self) -> bool:
        return self.method == "npo"

    def __call__(
        self, network: nn.Module, batch: UnlearningBatch, reference: nn.Module | None = None, /
    ) -> Float[Tensor, ""]:
        retained = mean_loss(network, batch.retain, loss_mask(batch.retain))
        if self.method == "ascent":
            return self.retain * retained - self.forget * mean_loss(network, batch.forget, loss_mask(batch.forget))
        with torch.no_grad():
            reference_log_probs = answer_log_probs(require_reference(reference), batch.forget)
        ratio = answer_log_probs(network, batch.forget) - reference_log_probs
        return self.retain * retained - self.forget * 2 / self.beta * logsigmoid(-self.beta * ratio).mean()
