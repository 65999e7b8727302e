"""Least-squares concept erasure: the smallest affine edit after which no linear probe reads the target.

Paper: Belrose et al., arXiv:2306.03819. With B = Σ_xx⁺ Σ_xz (the least-squares readout) and G = Σ_xzᵀ B the edit is
x ↦ x − Σ_xz G⁺ Bᵀ (x − μ): what the readout sees is taken out along the cross-covariance. Equal to the paper's W⁺UUᵀW form.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.moments import Moments
from ontogeny.probes import Probe
from ontogeny.probes._inputs import check_activations, class_indicators, number_target

targets = frozenset({"binary", "classes", "number"})
needs_pairs = False
recovers = "readout"
recovers_from = "labels"


@dataclass(frozen=True)
class Eraser:
    """`eraser(x)`: what is read along `readout` is taken out along `removed`; the mean stays, and twice is once."""

    removed: Float[Tensor, "site d k"]
    readout: Float[Tensor, "site d k"]
    mean: Float[Tensor, "site d"]

    def __call__(self, x: Float[Tensor, "site example d"]) -> Float[Tensor, "site example d"]:
        read = (x.to(self.mean) - self.mean[:, None]) @ self.readout
        return (x.to(self.mean) - read @ self.removed.mT).to(x)


@dataclass
class LeaceFitter:
    """From batches: `LeaceFitter().update(x1, z1).update(x2, z2).eraser`."""

    shrink: float = 0.0
    """Added to the covariance, as a share of its mean variance. Erasure on the fitted rows stays exact; with few examples a
    dimension the edit holds better on others, and is no longer the smallest."""
    moments: Moments | None = None

    def update(self, x: Float[Tensor, "site example d"], z: Float[Tensor, "example k"]) -> "LeaceFitter":
        """Add a batch; z holds one column a number or a class."""
        new = Moments.of(x, z)
        self.moments = new if self.moments is None else self.moments + new
        return self

    @property
    def eraser(self) -> Eraser:
        if self.moments is None:
            raise BadInput("leace has seen no examples yet. Update it before reading `eraser`.")
        return Eraser(*(part.float() for part in (*_edit(self.moments, self.shrink), self.moments.x)))


def leace(x: Float[Tensor, "site example d"], z: Float[Tensor, "example k"], *, shrink: float = 0.0) -> Eraser:
    """The eraser of one batch."""
    moments, axes = _span(x, z) if shrink == 0 else (Moments.of(x, z), None)
    return Eraser(*(part.to(x) for part in (*_from_span(_edit(moments, shrink), axes), x.double().mean(1))))


def fit(
    x: Float[Tensor, "site example d"],
    y: Tensor,
    *,
    groups: Int[Tensor, " example"],
    pairs: Int[Tensor, " example"] | None = None,
    seed: int = 0,
    moments: Moments | None = None,
) -> Probe:
    """Scores are the least-squares prediction of the target (minus ½ for binary); fact `removed` [site, d, k]: the erased shift.

    `eraser(x) = x − removed · (scores(x) − their mean)`. `moments` are those of x and y, where they were taken already.
    """
    x = check_activations("leace", x, y)
    z = number_target("leace", y)[:, None] if y.is_floating_point() else class_indicators("leace", y)
    taken, axes = (moments, None) if moments is not None else _span(x, z.double())
    removed, readout = _from_span(_edit(taken, 0.0), axes)
    return _make_probe(
        removed, readout, x.double().mean(1) if axes is not None else taken.x, _mean_target(taken.z, y.dtype)
    )


@dataclass
class Fitter:
    """The plug-in from batches, for binary labels and numbers: `Fitter().update(x1, y1).update(x2, y2).fitted`."""

    inner: LeaceFitter = field(default_factory=LeaceFitter)
    dtype: torch.dtype = torch.bool

    def update(self, x: Float[Tensor, "site example d"], y: Tensor, pairs: Tensor | None = None) -> "Fitter":
        """Add a batch."""
        self.dtype = y.dtype
        self.inner.update(check_activations("leace", x, y), y[:, None].double())
        return self

    @property
    def fitted(self) -> Probe:
        moments = self.inner.moments
        if moments is None or float(moments.xz.abs().max()) == 0:
            raise BadInput("leace has not seen two different targets yet. Update it with both before reading `fitted`.")
        return _make_probe(*_edit(moments, 0.0), moments.x, _mean_target(moments.z, self.dtype))


def _edit(moments: Moments, shrink: float) -> tuple[Float[Tensor, "site d k"], Float[Tensor, "site d k"]]:
    """Σ_xz G⁺ and B."""
    shift = shrink * moments.xx.diagonal(dim1=1, dim2=2).mean(1)
    shifted = moments.xx + shift[:, None, None] * torch.eye(moments.xx.shape[1]).to(moments.xx)
    readout = _regression(shifted, moments.xz)
    inner = moments.xz.mT @ readout
    return moments.xz @ torch.linalg.pinv((inner + inner.mT) / 2, rtol=1e-9, hermitian=True), readout


def _regression(xx: Float[Tensor, "site d d"], xz: Float[Tensor, "site d k"]) -> Float[Tensor, "site d k"]:
    """Σ⁺ Σ_xz: by Cholesky at the sites of full rank, by the pseudo-inverse at the others."""
    eps = torch.finfo(xx.dtype).eps
    factor, failed = torch.linalg.cholesky_ex(xx)
    pivots = factor.diagonal(dim1=1, dim2=2).square()
    # The pivots bound the condition from one side only: a wide margin to the usual cut of a pseudo-inverse.
    full = (failed == 0) & (pivots.amin(1) > 1e4 * eps * xx.shape[1] * pivots.amax(1))
    solved = torch.empty_like(xz)
    solved[full] = torch.cholesky_solve(xz[full], factor[full])
    if not full.all():
        values, vectors = torch.linalg.eigh(xx[~full])
        # Below it an eigenvalue is rounding.
        cut = values[:, -1:] * values.shape[1] * eps
        inverse = torch.where(values > cut, 1 / values, 0)[..., None]
        solved[~full] = vectors @ (inverse * (vectors.mT @ xz[~full]))
    return solved


def _span(x: Tensor, z: Tensor) -> tuple[Moments, Tensor | None]:
    """Fewer examples than dimensions: the same problem in the span of the examples, and the axes that lead back."""
    if x.shape[1] > x.shape[2]:
        return Moments.of(x, z), None
    centred = x.double() - x.double().mean(1, keepdim=True)
    axes = torch.linalg.qr(centred.mT)[0]
    return Moments.of(centred @ axes, z), axes


def _from_span(parts: tuple[Tensor, Tensor], axes: Tensor | None) -> tuple[Tensor, Tensor]:
    return parts if axes is None else (axes @ parts[0], axes @ parts[1])


def _mean_target(z: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean score: of the target, so that a binary one is cut at ½."""
    return z - 0.5 if dtype == torch.bool else z


def _make_probe(removed: Tensor, readout: Tensor, mean: Tensor, level: Tensor) -> Probe:
    bias = level - (readout.double() * mean.double()[..., None]).sum(1)
    return Probe(readout.float(), bias.float(), {"removed": removed.float()})
