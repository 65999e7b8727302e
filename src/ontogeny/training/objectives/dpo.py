"""DPO loss (arXiv:2305.18290)."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ontogeny.training.batches import PreferenceBatch, concatenate_batches
from ontogeny.training.objectives.log_probs import (
    answer_log_probs,
    require_reference,
)


@dataclass(frozen=True)
class Preference:
    """DPO: -log σ(β·(log-ratio of the chosen answer - log-ratio of the rejected one)), ratios to the reference."""

    beta: float = 0.1
    beta_rejected: float | None = None
    """Weight of the rejected answer's ratio, as in arXiv:2407.10264; None: `beta`."""
    needs_reference: ClassVar[bool] = True

    def __call__(
        self, network: nn.Module, batch: PreferenceBatch, reference: nn.Module | None = None, /
    ) -> Float[Tensor, ""]:
        if batch.reference is None:
            batch = with_reference_log_probs(batch, require_reference(reference))
        chosen, rejected = _pair_log_probs(network, batch) - batch.reference  # type: ignore[operator]
        beta_rejected = self.beta if self.beta_rejected is None else self.beta_rejected
        return -logsigmoid(self.beta * chosen - beta_rejected * rejected).mean()


@torch.no_grad()
def with_reference_log_probs(batch: PreferenceBatch, reference: nn.Module) -> PreferenceBatch:
    """The batch with its log-probabilities under the reference model, to compute them once per data set."""
    return replace(batch, reference=_pair_log_probs(reference, batch))


def _pair_log_probs(network: nn.Module, batch: PreferenceBatch) -> Float[Tensor, "side row"]:
    """Log-probabilities of chosen and rejected answers, in one forward pass."""
    return torch.stack(answer_log_probs(network, concatenate_batches(batch.chosen, batch.rejected)).chunk(2))
