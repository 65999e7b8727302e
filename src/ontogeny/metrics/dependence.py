"""Dependence of activations on the input and on the label by HSIC and normalised HSIC, which are not in nats.

Kernels: `gaussian_50` is that of arXiv:2402.19465, exp(−‖z−z′‖²/(2·50²·d)), almost linear at this width; `gaussian_median` uses the
median squared distance instead of 50²·d; `linear` is ⟨z, z′⟩/d; `imq` is 2d/(2d + ‖z−z′‖²). HSIC: Gretton et al. 2005; the
normalised form tr R_A R_B with R = K(K + εnI)⁻¹: Fukumizu et al. 2008.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput, unknown_name
from ontogeny.linalg.matmul import matmul
from ontogeny.metrics import Metric

KERNELS = ("gaussian_50", "gaussian_median", "linear", "imq")
_KERNEL_WIDTH = 50.0
_RIDGE_STRENGTH = 1e-5
_MAX_CONDITION, _MIN_EXAMPLES_SINGLE = 100, 256
"""Float32 is exact to 1e-6, at half the time, below this condition number of K + εnI and from this number of examples."""


@dataclass(frozen=True)
class Dependence:
    """Dependence of each site's activations T on the input X and the label Y; NaN if one of them is constant."""

    hsic_tx: Float[Tensor, " site"]
    hsic_ty: Float[Tensor, " site"]
    nhsic_tx: Float[Tensor, " site"]
    nhsic_ty: Float[Tensor, " site"]
    effective_dimension: Float[Tensor, " site"]
    """tr K(K + εnI)⁻¹ of the activations."""
    hsic_ty_shuffled: "ShuffledFloor | None" = None
    nhsic_ty_shuffled: "ShuffledFloor | None" = None


@dataclass(frozen=True)
class ShuffledFloor:
    """Dependence on shuffled labels."""

    mean: Float[Tensor, " site"]
    high: Float[Tensor, " site"]
    """97.5 % quantile."""


def dependence(
    t: Float[Tensor, "site example d"],
    x: Float[Tensor, "example p"],
    y: Float[Tensor, "example q"],
    kernel: str = "gaussian_50",
    *,
    permutations: Int[Tensor, "sample example"] | None = None,
    standardise: bool = True,
) -> Dependence:
    """Dependence on input and label, with the floor of shuffled labels, from one Gram matrix and one Cholesky factor per site.

    As in the paper, T and X are z-scored feature by feature (unless `standardise` is False); Y is used as given (0 and 1, one-hot,
    a number).
    """
    return dependence_by_kernel(t, x, y, (kernel,), permutations=permutations, standardise=standardise)[kernel]


def dependence_by_kernel(
    t: Float[Tensor, "site example d"],
    x: Float[Tensor, "example p"],
    y: Float[Tensor, "example q"],
    kernels: Sequence[str] = KERNELS,
    *,
    permutations: Int[Tensor, "sample example"] | None = None,
    standardise: bool = True,
) -> dict[str, Dependence]:
    """`dependence` for several kernels, which share the inner products of a site."""
    n = t.shape[1]
    _check(n, len(x), len(y))
    ready = zscore if standardise else torch.clone
    # At the published width float32 is exact to 1e-6, since the condition number of K + εnI is at most 40.
    dtype = torch.float32 if set(kernels) == {"gaussian_50"} and n >= _MIN_EXAMPLES_SINGLE else torch.float64
    inputs = _Products.of(ready(x[None].double())[0], dtype)
    sources = {kernel: _Kernel.of(inputs, kernel) for kernel in kernels}
    labels = {kernel: _Label.of(y, kernel) for kernel in kernels}
    values: dict[str, list[tuple[Tensor, Tensor | None]]] = {kernel: [] for kernel in kernels}
    for site in range(len(t)):  # one matrix at a time fits the CPU cache: faster than a batch
        products = _Products.of(ready(t[site : site + 1].to(dtype))[0], dtype)
        for kernel in kernels:
            here = _Kernel.of(products, kernel)
            values[kernel].append(_site_dependence(here, sources[kernel], labels[kernel], permutations))
    return {kernel: _stack_sites(sites) for kernel, sites in values.items()}


def _site_dependence(
    here: "_Kernel", source: "_Kernel", label: "_Label", permutations: Tensor | None
) -> tuple[Float[Tensor, "5"], Float[Tensor, "2 2"] | None]:
    """Five numbers, and with permutations mean and high of the shuffled floor for both forms."""
    n = len(here.k)
    k, r = here.forms(label.vectors.T[None])
    on_label = [k[0] @ label.values / (n - 1) ** 2, r[0] @ label.weights]
    row = torch.stack([here.hsic(source), on_label[0], here.nhsic(source), on_label[1], here.effective_dimension()])
    if permutations is None:
        return row, None
    k, r = here.forms(label.vectors[:, label.main].T[:, permutations].transpose(0, 1))
    samples = torch.stack([k @ label.values[label.main] / (n - 1) ** 2, r @ label.weights[label.main]])
    return row, torch.stack([samples.mean(1), samples.quantile(samples.new_tensor(0.975), dim=1)])


def _stack_sites(sites: list[tuple[Tensor, Tensor | None]]) -> Dependence:
    hsic_tx, hsic_ty, nhsic_tx, nhsic_ty, effective = torch.stack([row for row, _ in sites], 1)
    result = Dependence(hsic_tx, hsic_ty, nhsic_tx, nhsic_ty, effective)
    floors = [floor for _, floor in sites if floor is not None]
    if not floors:
        return result
    mean, high = torch.stack(floors, 2)
    return replace(
        result, hsic_ty_shuffled=ShuffledFloor(mean[0], high[0]), nhsic_ty_shuffled=ShuffledFloor(mean[1], high[1])
    )


def hsic(
    a: Float[Tensor, "example p"], b: Float[Tensor, "example q"], kernel: str = "gaussian_50"
) -> Float[Tensor, ""]:
    """Hilbert–Schmidt independence criterion of variables as given, ≥ 0; invariant to rotations and translations of either."""
    _check(len(a), len(b), len(a))
    return _Kernel.of(_Products.of(a), kernel).hsic(_Kernel.of(_Products.of(b), kernel))


def nhsic(
    a: Float[Tensor, "example p"], b: Float[Tensor, "example q"], kernel: str = "gaussian_50"
) -> Float[Tensor, ""]:
    """Normalised HSIC of variables as given, ≥ 0 and at most the smaller effective dimension; same invariances."""
    _check(len(a), len(b), len(a))
    return _Kernel.of(_Products.of(a), kernel).nhsic(_Kernel.of(_Products.of(b), kernel))


def zscore(x: Float[Tensor, "site example d"]) -> Float[Tensor, "site example d"]:
    """Each feature minus its mean, over its standard deviation; 0 for constant features."""
    x = x if x.dtype == torch.float64 else x.float()
    mean = x.mean(1, keepdim=True)
    z = x - mean
    var = z.square().sum(1, keepdim=True) / (x.shape[1] - 1)
    constant = var.sqrt() <= 10 * torch.finfo(var.dtype).eps * mean.abs()
    return z.mul_(torch.where(constant, 0, var.rsqrt()))


def centred_gram(z: Float[Tensor, "example d"], kernel: str) -> Float[Tensor, "example example"]:
    """HKH in float64, computed from K − 1, since for a wide kernel the entries of K are close to 1."""
    return _Products.of(z).gram(kernel)


@dataclass(frozen=True)
class _Products:
    """Inner products of the centred rows, from which all kernels are computed."""

    inner: Float[Tensor, "example example"]
    d: int

    @classmethod
    def of(cls, z: Float[Tensor, "example d"], dtype: torch.dtype = torch.float64) -> "_Products":
        wide = z.to(dtype)
        wide = wide - wide.mean(0)
        return cls(matmul(wide, wide.T), z.shape[1])

    def gram(self, kernel: str) -> Float[Tensor, "example example"]:
        """HKH."""
        if kernel not in KERNELS:
            raise unknown_name("kernel", kernel, KERNELS)
        if kernel == "linear":
            return self.inner / self.d
        if kernel == "imq":
            k = self._square(1.0)
            k.div_(-(k + 2 * self.d))
        elif kernel == "gaussian_50":
            k = self._square(-1 / (2 * _KERNEL_WIDTH**2 * self.d)).expm1_()
        else:
            square = self._square(1.0)
            k = square.div_(-2 * _median(square, self.inner.diagonal())).expm1_()
        mean = k.mean(0)
        return k.sub_(mean - mean.mean()).sub_(mean[:, None])

    def _square(self, scale: float) -> Float[Tensor, "example example"]:
        """Squared distances times `scale`."""
        power = scale * self.inner.diagonal()
        k = torch.add(power, self.inner, alpha=-2 * scale).add_(power[:, None])
        k = k.clamp_(min=0) if scale > 0 else k.clamp_(max=0)
        return k.fill_diagonal_(0)


def _median(square: Tensor, power: Tensor) -> Tensor:
    """Median squared distance of examples that differ (over all it would be 0 for most labels); NaN if none differ."""
    flat = square.flatten()
    equal = int((flat <= 1e-12 * power.amax()).sum())
    distinct = len(flat) - equal - int(flat.isnan().sum())
    if not distinct:
        return flat.new_tensor(torch.nan)
    # The lower median of the distinct ones by its rank among all, where NaN comes last.
    rank = equal + (distinct - 1) // 2
    if flat.device.type != "cpu":
        return flat.kthvalue(rank + 1).values
    return flat.new_tensor(np.partition(flat.numpy(), rank)[rank])  # five times as fast


@dataclass(frozen=True)
class _Kernel:
    """A centred Gram matrix K, and its normalised form R = K(K + cI)⁻¹ = I − c(K + cI)⁻¹ with c = εn, by Cholesky."""

    k: Float[Tensor, "example example"]
    r: Float[Tensor, "example example"]

    @classmethod
    def of(cls, products: _Products, kernel: str) -> "_Kernel":
        k = products.gram(kernel)
        spread, c = float(k.trace()), len(k) * _RIDGE_STRENGTH
        # NaN for a constant input, or if centring spread a non-finite value.
        if not spread > 1e-14:
            blank = torch.full_like(k, torch.nan, dtype=torch.float64)
            return cls(blank, blank)
        if spread < _MAX_CONDITION * c and len(k) >= _MIN_EXAMPLES_SINGLE:
            k = k.float()
        shifted = k.clone()
        shifted.diagonal().add_(c)
        r = torch.cholesky_inverse(torch.linalg.cholesky(shifted)).mul_(-c)
        r.diagonal().add_(1)
        return cls(k, r)

    def hsic(self, other: "_Kernel") -> Float[Tensor, ""]:
        return _inner(self.k, other.k) / (len(self.k) - 1) ** 2

    def nhsic(self, other: "_Kernel") -> Float[Tensor, ""]:
        """tr R_A R_B, entry by entry, without a matrix product."""
        return _inner(self.r, other.r)

    def effective_dimension(self) -> Float[Tensor, ""]:
        return self.r.diagonal().double().sum()

    def forms(
        self, v: Float[Tensor, "sample component example"]
    ) -> tuple[Float[Tensor, "sample component"], Float[Tensor, "sample component"]]:
        """vᵀKv and vᵀRv."""
        rows = v.flatten(0, 1).to(self.k)
        k, r = ((matmul(rows, matrix) * rows).double().sum(1).reshape(v.shape[:2]) for matrix in (self.k, self.r))
        return k, r


def _inner(a: Tensor, b: Tensor) -> Float[Tensor, ""]:
    """Sum of the products of entries, row by row, so that each float32 sum has few terms."""
    wide = torch.promote_types(a.dtype, b.dtype)
    return (a.to(wide) * b.to(wide)).sum(1).double().sum()


@dataclass(frozen=True)
class _Label:
    """Eigenvalues λ and eigenvectors of Y's centred Gram matrix, and the weights λ/(λ + εn) of its normalised form."""

    values: Float[Tensor, " component"]
    weights: Float[Tensor, " component"]
    vectors: Float[Tensor, "example component"]
    main: Bool[Tensor, " component"]
    """Components with at least a thousandth of the largest weight; a binary label has one."""

    @classmethod
    def of(cls, y: Float[Tensor, "example q"], kernel: str) -> "_Label":
        values, vectors = _factor(y, kernel)
        if not len(values):
            blank = values.new_full((1,), torch.nan)
            return cls(blank, blank, values.new_ones(len(y), 1), torch.ones(1, dtype=torch.bool))
        weights = values / (values + len(y) * _RIDGE_STRENGTH)
        main = weights >= 1e-3 * weights.amax()
        return cls(values, weights, vectors, main)


def _factor(y: Tensor, kernel: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of Y's centred Gram matrix; one fewer than Y has distinct values."""
    distinct, index = torch.unique(y, dim=0, return_inverse=True)
    if len(distinct) < 2 or not y.isfinite().all():
        return y.new_zeros(0).double(), y.new_zeros(len(y), 0).double()
    # Two labels have one distance, which is its own median; of more, each pair of examples counts.
    if len(distinct) > len(y) // 4 or (kernel == "gaussian_median" and len(distinct) > 2):
        values, vectors = torch.linalg.eigh(centred_gram(y, kernel))
    else:
        # Few distinct labels: solve the small eigenproblem over the distinct values and expand it to the examples.
        counts = torch.bincount(index).double()
        small = _weighted_label_gram(distinct, counts, kernel)
        values, inner = torch.linalg.eigh(small)
        vectors = (inner / counts.sqrt()[:, None])[index]
    keep = values > 1e-12 * values.amax()
    return values[keep], vectors[:, keep]


def _weighted_label_gram(distinct: Tensor, counts: Tensor, kernel: str) -> Tensor:
    """N^½ (I − 1wᵀ) K (I − w1ᵀ) N^½ over the distinct values with shares w; same eigenvalues as over the examples."""
    share = counts / counts.sum()
    # centred_gram centres without weights; centring by shares below makes this harmless.
    k = centred_gram(distinct, kernel)
    k = k - (share @ k)[None] - (k @ share)[:, None] + share @ k @ share
    return counts.sqrt()[:, None] * k * counts.sqrt()


def _check(n: int, *others: int) -> None:
    if n < 4 or any(m != n for m in others):
        raise BadInput(
            f"dependence needs at least 4 examples and the same number of each variable, got {n}, {', '.join(map(str, others))}."
        )


_SHARED = frozenset({"permutation", "rotation", "translation"})
metrics = (
    Metric("hsic", hsic, "variables", 0.0, None, _SHARED, "float64 formula with two centring matrices"),
    Metric("nhsic", nhsic, "variables", 0.0, None, _SHARED, "float64 formula with two inverses"),
)
