"""Platt scaling: a probability from a score by logistic regression on held-out examples (Platt 1999), and its calibration error.

Of several classes each has its own map, and the probabilities are scaled to the sum 1 (Zadrozny & Elkan, KDD 2002).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.logistic_solver import solve_logistic

_STRENGTH = 1e4
"""Almost no penalty: Platt's targets keep the map finite where the classes are apart."""


@dataclass(frozen=True)
class PlattScaling:
    """Maps from the scores of a probe to probabilities."""

    slope: Float[Tensor, " k"]
    """Log-odds for each unit of the score; k = 1 for two classes."""
    intercept: Float[Tensor, " k"]

    def probabilities(self, scores: Float[Tensor, "example k"]) -> Float[Tensor, "example c"]:
        """The probability of each class; of two classes the second one is the positive one."""
        each = torch.sigmoid(scores.double() * self.slope + self.intercept)
        if each.shape[1] == 1:
            return torch.cat([1 - each, each], 1)
        each = each.clamp(min=1e-12)
        shares: Tensor = each / each.sum(1, keepdim=True)
        return shares


def fit_platt_scaling(scores: Float[Tensor, "example k"], y: Int[Tensor, " example"]) -> PlattScaling:
    """The maps of some held-out scores.

    Args:
        scores: Of examples that the probe was not fitted on; k = 1 for two classes, else a column for each class.
        y: Class of each example, from 0.

    Raises:
        BadInput: a class has no example, or a score is not finite.
    """
    scores, columns = scores.double(), scores.shape[1]
    classes = max(columns, 2)
    counts = y.bincount(minlength=classes)
    if len(counts) > classes or not bool((counts > 0).all()) or not bool(torch.isfinite(scores).all()):
        raise BadInput(
            f"`scores` must be finite, with examples of all {classes} classes, got {counts.tolist()} examples: give more of them."
        )
    slopes, intercepts = zip(
        *(_fit_column(scores[:, k], y == (1 if columns == 1 else k)) for k in range(columns)), strict=True
    )
    return PlattScaling(torch.stack(slopes), torch.stack(intercepts))


def _fit_column(score: Float[Tensor, " example"], inside: Tensor) -> tuple[Tensor, Tensor]:
    middle, spread = score.mean(), score.std().clamp(min=1e-12)
    positive, negative = int(inside.sum()), int((~inside).sum())
    target = torch.where(inside, (positive + 1) / (positive + 2), 1 / (negative + 2)).double()
    features = torch.stack([(score - middle) / spread, torch.ones_like(score)], 1)[None]
    strength = torch.full((1, 1), _STRENGTH, dtype=torch.float64)
    fitted = solve_logistic(
        features, target[:, None, None], torch.ones_like(score)[:, None], strength, tolerance=1e-8
    ).flatten()
    return fitted[0] / spread, fitted[1] - fitted[0] * middle / spread
