"""Shattering: how far an edit moves the representations of other things from each other (arXiv:2410.17194).

The paper's R depends on the scale of the representations and has no upper bound; the two others do not depend on scale.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput


@dataclass(frozen=True)
class Shattering:
    """Distances between representations before and after an edit; NaN where there are none."""

    distortion: float
    """R = ‖D* − D₀‖ / ‖D₀‖ of the matrices of pairwise distances; 0 if nothing has moved, no upper bound."""
    rearrangement: float
    """1 − Pearson correlation of the pairwise distances, 0 to 2; invariant to scale."""
    procrustes: float
    """Share of the variance that no rotation, reflection, shift and scaling maps back, 0 to 1."""


def shattering(before: Float[Tensor, "thing d"], after: Float[Tensor, "thing d"]) -> Shattering:
    """Compare the representations of the same things, in the same order.

    Raises:
        BadInput: fewer than three things, or another number of them after the edit.
    """
    if before.shape != after.shape or before.ndim != 2 or len(before) < 3:
        raise BadInput(
            f"shattering compares at least 3 representations before and after, got {tuple(before.shape)} and {tuple(after.shape)}."
        )
    x, y = before.double(), after.double()
    pairs = torch.triu_indices(len(x), len(x), offset=1)
    d0, d1 = (_distances(points)[pairs[0], pairs[1]] for points in (x, y))
    nan = float("nan")
    distortion = float((d1 - d0).norm() / d0.norm()) if float(d0.norm()) > 0 else nan
    a, b = d0 - d0.mean(), d1 - d1.mean()
    size = float(a.norm() * b.norm())
    rearrangement = max(0.0, 1 - float(a @ b) / size) if size > 0 else nan
    x, y = x - x.mean(0), y - y.mean(0)
    size = float(x.norm() * y.norm())
    procrustes = max(0.0, 1 - (float(torch.linalg.svdvals(x.T @ y).sum()) / size) ** 2) if size > 0 else nan
    return Shattering(distortion, rearrangement, procrustes)


def _distances(points: Float[Tensor, "thing d"]) -> Float[Tensor, "thing thing"]:
    # Without the matrix product, whose rounding is as large as the distance of close points.
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
