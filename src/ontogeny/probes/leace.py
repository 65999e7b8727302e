"""Least-squares concept erasure (LEACE): the smallest affine edit after which no linear probe can predict the target.

Paper: Belrose et al., arXiv:2306.03819. With B = Σ_xx⁺ Σ_xz (the least-squares readout) and G = Σ_xzᵀ B the edit is
x ↦ x − Σ_xz G⁺ Bᵀ (x − μ), which equals the paper's W⁺UUᵀW form.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.moments import Moments
from ontogeny.probes import FoldProbes, Probe, check_activations, class_indicators, number_target, training_masks

targets = frozenset({"binary", "classes", "number"})
needs_pairs = False
recovers = "readout"
recovers_from = "labels"

SHRINK = 0.01
"""Default of `fit_folds`: with about as many examples as dimensions, an unshrunk readout fits noise and leaves the concept readable."""


@dataclass(frozen=True)
class Eraser:
    """`eraser(x)` removes the scores along `readout` in the direction `removed`; it keeps the mean and is idempotent."""

    removed: Float[Tensor, "site d k"]
    readout: Float[Tensor, "site d k"]
    mean: Float[Tensor, "site d"]

    def __call__(self, x: Float[Tensor, "site example d"]) -> Float[Tensor, "site example d"]:
        read = (x.to(self.mean) - self.mean[:, None]) @ self.readout
        return (x.to(self.mean) - read @ self.removed.mT).to(x)


@dataclass
class LeaceFitter:
    """Streaming: `LeaceFitter().update(x1, z1).update(x2, z2).eraser`."""

    shrink: float = 0.0
    """Added to the covariance, as a share of its mean variance. Erasure on the fitted rows stays exact; with few examples per
    dimension it generalises better, but the edit is no longer the smallest."""
    moments: Moments | None = None

    def update(self, x: Float[Tensor, "site example d"], z: Float[Tensor, "example k"]) -> "LeaceFitter":
        """Add a batch; z has one column per number or class."""
        new = Moments.of(x, z)
        self.moments = new if self.moments is None else self.moments + new
        return self

    @property
    def eraser(self) -> Eraser:
        if self.moments is None:
            raise BadInput("leace has no examples yet: call update() before reading its eraser.")
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
    shrink: float = 0.0,
) -> Probe:
    """Scores are the least-squares prediction of the target (minus ½ for binary); fact `removed` [site, d, k]: the erased shift.

    `eraser(x) = x − removed · (scores(x) − their mean)`. `moments` are those of x and y, if known; `shrink` as in `LeaceFitter`.
    """
    x = check_activations("leace", x, y)
    z = number_target("leace", y)[:, None] if y.is_floating_point() else class_indicators("leace", y)
    known, axes = (moments, None) if moments is not None else _span(x, z.double())
    removed, readout = _from_span(_edit(known, shrink, x.shape[2]), axes)
    mean = known.x if axes is None else x.double().mean(1)
    return _make_probe(removed, readout, mean, _mean_target(known.z, y.dtype))


def fit_folds(
    x: Float[Tensor, "site example d"],
    y: Tensor,
    folds: Int[Tensor, " example"],
    *,
    groups: Int[Tensor, " example"],
    pairs: Int[Tensor, " example"] | None = None,
    seed: int = 0,
    moments: Moments | None = None,
    rest: Sequence[Moments] = (),
    shrink: float = SHRINK,
) -> FoldProbes:
    """The probe of all examples and that of each fold; `rest` are the moments of the examples outside each fold, if known."""
    probe = fit(x, y, groups=groups, pairs=pairs, seed=seed, moments=moments, shrink=shrink)
    each = []
    for fold, mask in enumerate(training_masks(folds)):
        if rest:
            level = _mean_target(rest[fold].z, y.dtype)
            each.append(_make_probe(*_edit(rest[fold], shrink), rest[fold].x, level))
        else:
            each.append(fit(x[:, mask], y[mask], groups=groups[mask], seed=seed, shrink=shrink))
    return FoldProbes.of(probe, each)


@dataclass
class Fitter:
    """Streaming, for binary labels and numbers: `Fitter().update(x1, y1).update(x2, y2).fitted`."""

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
            raise BadInput("leace needs two different targets: call update() with both before reading the probe.")
        return _make_probe(*_edit(moments, 0.0), moments.x, _mean_target(moments.z, self.dtype))


def _edit(
    moments: Moments, shrink: float, d: int | None = None
) -> tuple[Float[Tensor, "site d k"], Float[Tensor, "site d k"]]:
    """Σ_xz G⁺ and B; `d` is the number of dimensions if the moments are those in a span."""
    shift = shrink * moments.xx.diagonal(dim1=1, dim2=2).sum(1) / (d or moments.xx.shape[1])
    shifted = moments.xx.clone()
    shifted.diagonal(dim1=1, dim2=2).add_(shift[:, None])
    readout = _regression(shifted, moments.xz)
    inner = moments.xz.mT @ readout
    return moments.xz @ torch.linalg.pinv((inner + inner.mT) / 2, rtol=1e-9, hermitian=True), readout


def _regression(xx: Float[Tensor, "site d d"], xz: Float[Tensor, "site d k"]) -> Float[Tensor, "site d k"]:
    """Σ⁺ Σ_xz: by Cholesky at the sites of full rank, by the pseudo-inverse at the others."""
    eps = torch.finfo(xx.dtype).eps
    factor, failed = torch.linalg.cholesky_ex(xx)
    pivots = factor.diagonal(dim1=1, dim2=2).square()
    # Pivots bound the condition number from one side only, hence the wide margin to the usual cutoff of a pseudo-inverse.
    full = (failed == 0) & (pivots.amin(1) > 1e4 * eps * xx.shape[1] * pivots.amax(1))
    solved = torch.empty_like(xz)
    solved[full] = torch.cholesky_solve(xz[full], factor[full])
    if not full.all():
        values, vectors = torch.linalg.eigh(xx[~full])
        # Smaller eigenvalues are rounding errors.
        cut = values[:, -1:] * values.shape[1] * eps
        inverse = torch.where(values > cut, 1 / values, 0)[..., None]
        solved[~full] = vectors @ (inverse * (vectors.mT @ xz[~full]))
    return solved


def _span(x: Tensor, z: Tensor) -> tuple[Moments, Tensor | None]:
    """With fewer examples than dimensions: the same problem in the span of the examples, and the axes of that span."""
    if x.shape[1] > x.shape[2]:
        return Moments.of(x, z), None
    centred = x.double() - x.double().mean(1, keepdim=True)
    axes = torch.linalg.qr(centred.mT)[0]
    return Moments.of(centred @ axes, z), axes


def _from_span(parts: tuple[Tensor, Tensor], axes: Tensor | None) -> tuple[Tensor, Tensor]:
    return parts if axes is None else (axes @ parts[0], axes @ parts[1])


def _mean_target(z: Tensor, dtype: torch.dtype) -> Tensor:
    """Mean score: the mean target, minus ½ for a binary one."""
    return z - 0.5 if dtype == torch.bool else z


def _make_probe(removed: Tensor, readout: Tensor, mean: Tensor, level: Tensor) -> Probe:
    bias = level - (readout.double() * mean.double()[..., None]).sum(1)
    return Probe(readout.float(), bias.float(), {"removed": removed.float()})
