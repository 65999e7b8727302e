"""Geometry of activations: effective number of dimensions and variance shares of the principal components.

Show it beside every dependence curve: a concentrating spectrum alone looks like compression.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.metrics import Metric


@dataclass(frozen=True)
class Geometry:
    """All metrics of this file for each site."""

    participation_ratio: Float[Tensor, " site"]
    effective_rank: Float[Tensor, " site"]
    variance_share: Float[Tensor, "site k"]


def geometry(
    x: Float[Tensor, "site example d"], *, k: int = 10, variances: Float[Tensor, "site component"] | None = None
) -> Geometry:
    """All metrics from one decomposition per site; `variances` are the eigenvalues of its scatter, smallest first, if known."""
    values = _variances(x) if variances is None else _where_spread(variances, x)
    return Geometry(_participation(values), _effective(values), _shares(values, k))


def participation_ratio(x: Float[Tensor, "site example d"]) -> Float[Tensor, " site"]:
    """(Σλ)²/Σλ² of the covariance, from 1 (a line) to min(d, example − 1); invariant to rotation, translation and scale.

    Source: Gao et al. 2017, bioRxiv 214262. NaN for constant activations.
    """
    return _participation(_variances(x))


def effective_rank(x: Float[Tensor, "site example d"]) -> Float[Tensor, " site"]:
    """exp of the entropy of the singular values' shares, from 1 to min(d, example − 1); the same invariances.

    Source: Roy & Vetterli, EUSIPCO 2007. NaN for constant activations.
    """
    return _effective(_variances(x))


def variance_share(x: Float[Tensor, "site example d"], *, k: int = 10) -> Float[Tensor, "site k"]:
    """Share of the variance of each of the first k principal components, largest first, in [0, 1]; the same invariances.

    NaN for constant activations, and for components beyond the rank limit.
    """
    return _shares(_variances(x), k)


def _variances(x: Tensor) -> Tensor:
    """Eigenvalues of the scatter, largest first; all NaN at a site with constant or non-finite activations."""
    if x.shape[1] < 2:
        raise BadInput(f"geometry needs at least 2 examples, got {x.shape[1]}.")
    wide = x.double()
    centred = wide - wide.mean(1, keepdim=True)
    # Rounding of the mean does not count as variance.
    spread = centred.abs().amax((1, 2)) > 1e-12 * wide.abs().amax((1, 2))
    known = x.isfinite().all(2).all(1) & spread
    centred = torch.where(known[:, None, None], centred, 0)
    small = centred @ centred.mT if x.shape[1] < x.shape[2] else centred.mT @ centred
    values = torch.linalg.eigvalsh(small).flip(1).clamp(min=0)
    return torch.where(known[:, None], values, torch.nan)


def _where_spread(variances: Tensor, x: Tensor) -> Tensor:
    """`_variances` from known eigenvalues, smallest first."""
    # Rounding of the mean does not count as variance: at most n d (1e-12 of the largest entry)².
    floor = 1e-24 * x.shape[1] * x.shape[2] * x.abs().amax((1, 2)).double().square()
    known = variances.sum(1) > floor
    return torch.where(known[:, None], variances.flip(1).clamp(min=0), torch.nan)


def _participation(values: Tensor) -> Tensor:
    return values.sum(1).square() / values.square().sum(1)


def _effective(values: Tensor) -> Tensor:
    # Drop eigenvalues that are rounding errors: their square roots would count.
    roots = torch.where(values > 1e-13 * values[:, :1], values, 0 * values).sqrt()
    p = roots / roots.sum(1, keepdim=True)
    entropy: Tensor = torch.special.entr(p).sum(1)
    return entropy.exp()


def _shares(values: Tensor, k: int) -> Tensor:
    shares = values / values.sum(1, keepdim=True)
    return torch.nn.functional.pad(shares, (0, max(0, k - shares.shape[1])), value=torch.nan)[:, :k]


_SHARED = frozenset({"permutation", "rotation", "translation", "scale"})
metrics = (
    Metric("participation_ratio", participation_ratio, "activations", 1.0, None, _SHARED, "numpy.linalg.svd"),
    Metric("effective_rank", effective_rank, "activations", 1.0, None, _SHARED, "numpy.linalg.svd"),
    Metric("variance_share", variance_share, "activations", 0.0, 1.0, _SHARED, "sklearn.decomposition.PCA"),
)
