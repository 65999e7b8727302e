"""Subspaces of weight differences: rank, and the share that lies in the column and the row space of the base's weights (arXiv:2407.10264).

The column space of W is spanned by its left singular vectors (outputs), the row space by its right ones (inputs). A space has the vectors
that cover a share, by default 90 %, of the squared singular values. Weights are not centred.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput

ENERGY_SHARE = 0.9
"""Share of the squared singular values that a space covers."""


@dataclass(frozen=True, eq=False)
class SingularVectors:
    """The leading singular vectors of a matrix, by falling singular value."""

    left: Float[Tensor, "out r"]
    values: Float[Tensor, " r"]
    right: Float[Tensor, "in r"]

    @property
    def rank(self) -> int:
        return len(self.values)


def singular_vectors(matrix: Float[Tensor, "out in"], share: float = ENERGY_SHARE) -> SingularVectors:
    """The singular vectors that cover a share of the squared singular values of a matrix; none of a zero matrix.

    Args:
        share: Above 0, at most 1. With 1 those whose singular value is not a rounding error.

    Raises:
        BadInput: a share outside this range, or weights that are not finite.
    """
    if not 0 < share <= 1:
        raise BadInput(f"`share` must be above 0 and at most 1, got {share}: 0.9 is usual.")
    if not bool(matrix.isfinite().all()):
        raise BadInput("weights must be finite, got NaN or an infinite number: take another checkpoint.")
    left, values, right = torch.linalg.svd(matrix.float(), full_matrices=False)
    rank = energy_rank(values, share)
    return SingularVectors(left[:, :rank], values[:rank], right[:rank].T)


def energy_rank(values: Float[Tensor, " r"], share: float = ENERGY_SHARE) -> int:
    """The least number of singular values, given in falling order, whose squares cover a share of the sum of squares."""
    energy = values.double().square()
    if not energy.sum() > 0:
        return 0
    real = int((values > values[0] * len(values) * torch.finfo(values.dtype).eps).sum())
    done = energy.cumsum(0) / energy.sum()
    return min(int((done < share).sum()) + 1, real)


def aligned_share(vectors: Float[Tensor, "d r"], values: Float[Tensor, " r"], basis: Float[Tensor, "d k"]) -> float:
    """Share of a change that lies in a subspace: the mean squared projection of its singular vectors, weighted by the squared values.

    1 if the subspace holds the change, 0 if it is orthogonal to it; k/d on average over random subspaces. NaN without a change.

    Args:
        vectors: Left singular vectors for a column space, right ones for a row space.
        basis: Orthonormal vectors of the subspace.
    """
    weight = values.double().square()
    if not weight.sum() > 0:
        return float("nan")
    inside = (basis.double().T @ vectors.double()).square().sum(0)
    return float((weight * inside).sum() / weight.sum())


def random_aligned_shares(
    values: Float[Tensor, " r"], d: int, k: int, *, draws: int, seed: int
) -> Float[Tensor, " draw"]:
    """`aligned_share` of random orthonormal vectors with the same singular values: the null of equal rank and norm.

    Which subspace it is does not matter, so that it is that of the first k axes.

    Args:
        d: Dimensions of the space.
        k: Dimensions of the subspace.
    """
    generator, weight = torch.Generator().manual_seed(seed), values.double().cpu().square()
    shares = []
    for _ in range(draws):
        vectors = random_orthonormal(d, len(values), generator).double()
        shares.append((weight * vectors[:k].square().sum(0)).sum() / weight.sum())
    return torch.stack(shares)


def random_orthonormal(d: int, r: int, generator: torch.Generator) -> Float[Tensor, "d r"]:
    """Orthonormal columns in a uniformly random direction."""
    q, upper = torch.linalg.qr(torch.randn(d, r, generator=generator))
    # The signs make the distribution uniform (Mezzadri 2007).
    signed: Tensor = q * upper.diagonal().sign()
    return signed
