"""Cost of an attribution, counted in forward passes over a batch, and as a share of retraining without each stage once.

A gradient costs three forward passes (arXiv:2001.08361), a Hessian product about three gradients and a Gauss–Newton product two and a half,
as measured on a small convolutional network and a small transformer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

FORWARD = 1.0
GRADIENT = 3.0
HESSIAN_PRODUCT = 9.0
GAUSS_NEWTON_PRODUCT = 7.5


@dataclass(frozen=True)
class TierCost:
    """Cost of one tier."""

    tier: str
    passes: float
    """Forward passes over a batch of training, or over as many tokens."""
    retraining: float
    """Forward passes of retraining without each stage once, in the same unit; NaN if unknown."""

    @property
    def share(self) -> float:
        """Cost as a share of retraining without each stage once; NaN if that is unknown."""
        return self.passes / self.retraining if self.retraining > 0 else math.nan


def retraining_passes(stage_steps: Sequence[float]) -> float:
    """Forward passes of training again without each stage once.

    Args:
        stage_steps: Steps (or tokens) of each stage.
    """
    return GRADIENT * sum(sum(stage_steps) - own for own in stage_steps)
