"""Similarity of two directions or two subspaces."""

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.metrics import Metric


def cosine(a: Float[Tensor, "*#batch d"], b: Float[Tensor, "*#batch d"]) -> Float[Tensor, "..."]:
    """Cosine of the angle, in [-1, 1]; invariant to a common rotation and to positive scale; NaN for a zero vector.

    Two random directions have cosine 0 ± 1/√d.
    """
    a, b = a.double(), b.double()
    # Scale first, so that the squares of very small or large vectors stay in range.
    a, b = a / a.abs().amax(-1, keepdim=True), b / b.abs().amax(-1, keepdim=True)
    value: Tensor = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return value.clamp(-1, 1).float()


def unit_vectors(vectors: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Vectors of length 1 in float64, whose products are cosines; NaN for a zero vector."""
    wide = vectors.double()
    if vectors.dtype == torch.float64:  # of narrower numbers, no square leaves the range
        wide = wide / wide.abs().amax(-1, keepdim=True)
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return wide / norm if vectors.dtype == torch.float64 else wide.div_(norm)


def cosine_of_units(products: Float[Tensor, "*cell"]) -> Float[Tensor, "*cell"]:
    """Products of `unit_vectors` as `cosine` gives them."""
    return products.clamp(-1, 1).float()


def subspace_cosines(a: Float[Tensor, "*batch d k"], b: Float[Tensor, "*batch d j"]) -> Float[Tensor, "*batch least"]:
    """Cosines of the principal angles, largest first, in [0, 1]; invariant to a common rotation and to the choice of basis.

    Source: Björck & Golub 1973. NaN if a basis is not of full rank.
    """
    frames, known = zip(*(_frame(basis) for basis in (a, b)), strict=True)
    cosines = torch.linalg.svdvals(frames[0].mT @ frames[1]).clamp(max=1)
    return torch.where((known[0] & known[1])[..., None], cosines, torch.nan).float()


def subspace_overlap(a: Float[Tensor, "*batch d k"], b: Float[Tensor, "*batch d j"]) -> Float[Tensor, "*batch"]:
    """Mean squared cosine of the principal angles, in [0, 1]; 1 if one subspace contains the other."""
    return subspace_cosines(a, b).square().mean(-1)


def _frame(basis: Tensor) -> tuple[Tensor, Tensor]:
    """Orthonormal basis, and whether the basis has full rank."""
    wide = basis.double()
    finite = wide.isfinite().all(-1).all(-1)
    u, s, _ = torch.linalg.svd(torch.where(finite[..., None, None], wide, 0), full_matrices=False)
    return u, finite & (s[..., -1] > 1e-6 * s[..., 0]) & (basis.shape[-1] <= basis.shape[-2])


_SHARED = frozenset({"rotation", "scale"})
metrics = (
    Metric("cosine", cosine, "directions", -1.0, 1.0, _SHARED, "numpy.dot over the norms"),
    Metric("subspace_overlap", subspace_overlap, "subspaces", 0.0, 1.0, _SHARED, "scipy.linalg.subspace_angles"),
)
