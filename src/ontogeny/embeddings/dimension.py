"""Intrinsic dimension of a cloud of vectors: locally, by the principal components of neighbours, and as a whole, by two neighbours.

Both are invariant to rotation, scale and translation. A dimension is read beside that of Gaussian clouds of the same size.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

VARIANCE_SHARE = 0.95
_DISCARDED = 0.1
"""Share of the largest ratios that the fit leaves out (arXiv:1803.06992, section Methods)."""
_SAMPLES = 200
_BLOCK_ENTRIES = 2**24
_SMALLEST_RATIO = 1e-12


def local_dimensions(
    x: Float[Tensor, "token d"], neighbours: Int[Tensor, "query k"], *, share: float = VARIANCE_SHARE
) -> Int[Tensor, " query"]:
    """Number of principal components that explain a share of the variance of each token's neighbours, from 1 to min(d, k − 1).

    Source: arXiv:2503.21073. 0 where all neighbours coincide.
    """
    counts = []
    size = max(1, _BLOCK_ENTRIES // (neighbours.shape[1] * x.shape[1]))
    for near in torch.split(neighbours, size):
        cloud = x[near]
        cloud = cloud - cloud.mean(1, keepdim=True)
        small = cloud @ cloud.mT if cloud.shape[1] < cloud.shape[2] else cloud.mT @ cloud
        variances = torch.linalg.eigvalsh(small).flip(1).clamp(min=0).double()
        total = variances.sum(1, keepdim=True)
        reached = variances.cumsum(1) >= share * total * (1 - 1e-9)
        counts.append(torch.where(total[:, 0] > 0, reached.int().argmax(1) + 1, 0))
    return torch.cat(counts)


@dataclass(frozen=True)
class IntrinsicDimension:
    """Dimension of a cloud by the ratios of the distances to two neighbours, with its 95 % interval over tokens."""

    value: float
    low: float
    high: float
    tokens: int
    """Tokens that could be used."""
    reason: str = ""
    """Why there is no value."""


def two_nn_dimension(distances: Float[Tensor, "query 2"], *, seed: int = 0) -> IntrinsicDimension:
    """TwoNN (Facco et al. 2017, arXiv:1803.06992): slope of −log(1 − F) over the log ratio of the second to the first distance.

    Args:
        distances: To the two nearest neighbours of each token. Tokens that coincide with another one are left out.
    """
    ratio = (distances[:, 1].double() / distances[:, 0].double()).log()
    known = (distances[:, 0] > 0) & ratio.isfinite()
    ratio = ratio[known]
    if len(ratio) < 10:
        return IntrinsicDimension(math.nan, math.nan, math.nan, len(ratio), "fewer than 10 tokens have distinct rows")
    value = float(_slope(ratio[None])[0])
    picks = torch.randint(len(ratio), (_SAMPLES, len(ratio)), generator=torch.Generator().manual_seed(seed))
    drawn = _slope(ratio[picks])
    # The spread of resamples about their own mean: ties among them shift the slope itself.
    half = 1.96 * float(drawn.std())
    return IntrinsicDimension(value, max(0.0, value - half), value + half, len(ratio))


def _slope(ratios: Float[Tensor, "sample token"]) -> Float[Tensor, " sample"]:
    count = ratios.shape[1]
    most = int(count * (1 - _DISCARDED))
    x = ratios.sort(1).values[:, :most].clamp(min=_SMALLEST_RATIO)
    y = -(1 - torch.arange(1, most + 1, dtype=torch.float64) / count).log()
    slope: Tensor = (x @ y) / x.square().sum(1)
    return slope
