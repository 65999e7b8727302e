"""Dependence of activations on the input and on the label, by HSIC and normalised HSIC. Not mutual information: no nats.

Kernels: `gaussian_50` is that of arXiv:2402.19465, exp(−‖z−z′‖²/(2·50²·d)), almost linear at this width; `gaussian_median` puts the
median squared distance in place of 50²·d; `linear` is ⟨z, z′⟩/d; `imq` is 2d/(2d + ‖z−z′‖²). HSIC: Gretton et al. 2005; the
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

_KERNELS = ("gaussian_50", "gaussian_median", "linear", "imq")
KERNEL_WIDTH = 50.0
RIDGE_STRENGTH = 1e-5
_MAX_CONDITION, _MIN_EXAMPLES_SINGLE = 100, 256
"""Condition of K + εnI below which, and number of examples from which, single precision is exact to 1e-6, at half the time."""


@dataclass(frozen=True)
class Dependence:
    """Of each site's activations T on the input X and the label Y; NaN where one of the two has no spread."""

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
    """What shuffled labels give."""

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
    """Both targets, and the floor of the label, from one centred Gram matrix and one Cholesky factor a site.

    T and X are z-scored feature by feature (unless they already are), Y is taken as it is (0 and 1, one-hot, a number), as the
    paper does.
    """
    return dependence_by_kernel(t, x, y, (kernel,), permutations=permutations, standardise=standardise)[kernel]


def dependence_by_kernel(
    t: Float[Tensor, "site example d"],
    x: Float[Tensor, "example p"],
    y: Float[Tensor, "example q"],
    kernels: Sequence[str] = _KERNELS,
    *,
    permutations: Int[Tensor, "sample example"] | None = None,
    standardise: bool = True,
) -> dict[str, Dependence]:
    """The same under several kernels, which share the inner products of a site."""
    n = t.shape[1]
    _check(n, len(x), len(y))
    ready = zscore if standardise else torch.clone
    # At the published width single precision is exact to 1e-6, for the condition of K + εnI is at most 40.
    dtype = torch.float32 if set(kernels) == {"gaussian_50"} and n >= _MIN_EXAMPLES_SINGLE else torch.float64
    given = _Products.of(ready(x[None].double())[0], dtype)
    sources = {kernel: _Kernel.of(given, kernel) for kernel in kernels}
    labels = {kernel: _Label.of(y, kernel) for kernel in kernels}
    found: dict[str, list[tuple[Tensor, Tensor | None]]] = {kernel: [] for kernel in kernels}
    for site in range(len(t)):  # one matrix at a time stays in the cache: faster than a batch of them
        products = _Products.of(ready(t[site : site + 1].to(dtype))[0], dtype)
        for kernel in kernels:
            here = _Kernel.of(products, kernel)
            found[kernel].append(_site_dependence(here, sources[kernel], labels[kernel], permutations))
    return {kernel: _stack_sites(sites) for kernel, sites in found.items()}


def _site_dependence(
    here: "_Kernel", source: "_Kernel", label: "_Label", permutations: Tensor | None
) -> tuple[Float[Tensor, "5"], Float[Tensor, "2 2"] | None]:
    """Five numbers; mean and high of the label's floor for both forms, where permutations are given."""
    n = len(here.k)
    k, r = here.forms(label.vectors.T[None])
    told = [k[0] @ label.values / (n - 1) ** 2, r[0] @ label.weights]
    row = torch.stack([here.hsic(source), told[0], here.nhsic(source), told[1], here.effective_dimension()])
    if permutations is None:
        return row, None
    k, r = here.forms(label.vectors[:, label.main].T[:, permutations].transpose(0, 1))
    samples = torch.stack([k @ label.values[label.main] / (n - 1) ** 2, r @ label.weights[label.main]])
    return row, torch.stack([samples.mean(1), samples.quantile(samples.new_tensor(0.975), dim=1)])


def _stack_sites(sites: list[tuple[Tensor, Tensor | None]]) -> Dependence:
    hsic_tx, hsic_ty, nhsic_tx, nhsic_ty, effective = torch.stack([row for row, _ in sites], 1)
    found = Dependence(hsic_tx, hsic_ty, nhsic_tx, nhsic_ty, effective)
    floors = [floor for _, floor in sites if floor is not None]
    if not floors:
        return found
    mean, high = torch.stack(floors, 2)
    return replace(
        found, hsic_ty_shuffled=ShuffledFloor(mean[0], high[0]), nhsic_ty_shuffled=ShuffledFloor(mean[1], high[1])
    )


def hsic(
    a: Float[Tensor, "example p"], b: Float[Tensor, "example q"], kernel: str = "gaussian_50"
) -> Float[Tensor, ""]:
    """Hilbert–Schmidt independence criterion of variables as given, ≥ 0; unchanged by rotations and translations of either."""
    _check(len(a), len(b), len(a))
    return _Kernel.of(_Products.of(a), kernel).hsic(_Kernel.of(_Products.of(b), kernel))


def nhsic(
    a: Float[Tensor, "example p"], b: Float[Tensor, "example q"], kernel: str = "gaussian_50"
) -> Float[Tensor, ""]:
    """Normalised HSIC of variables as given, ≥ 0 and at most the smaller effective dimension; same invariances."""
    _check(len(a), len(b), len(a))
    return _Kernel.of(_Products.of(a), kernel).nhsic(_Kernel.of(_Products.of(b), kernel))


def nhsic_ty_cap(p: float, *, width: float = KERNEL_WIDTH, ridge: float = RIDGE_STRENGTH) -> float:
    """The most that nHSIC with a binary label of positive rate p can be: .909 at ½, .783 at .1 (width 50)."""
    if not 0 < p < 1:
        raise BadInput(f"a label with positive rate {p} has no dependence to cap. Give a rate between 0 and 1.")
    value = 2 * p * (1 - p) * -float(torch.expm1(torch.tensor(-0.5 / width**2, dtype=torch.float64)))
    return value / (value + ridge)


def zscore(x: Float[Tensor, "site example d"]) -> Float[Tensor, "site example d"]:
    """Each feature less its mean over its standard deviation; 0 for a feature without spread."""
    x = x if x.dtype == torch.float64 else x.float()
    mean = x.mean(1, keepdim=True)
    z = x - mean
    var = z.square().sum(1, keepdim=True) / (x.shape[1] - 1)
    constant = var.sqrt() <= 10 * torch.finfo(var.dtype).eps * mean.abs()
    return z.mul_(torch.where(constant, 0, var.rsqrt()))


def centred_gram(z: Float[Tensor, "example d"], kernel: str) -> Float[Tensor, "example example"]:
    """HKH in float64, from K − 1: at a great width every entry of K is close to 1, and the digits that matter are in the rest."""
    return _Products.of(z).gram(kernel)


@dataclass(frozen=True)
class _Products:
    """Inner products of the centred rows: all that any kernel needs."""

    inner: Float[Tensor, "example example"]
    d: int

    @classmethod
    def of(cls, z: Float[Tensor, "example d"], dtype: torch.dtype = torch.float64) -> "_Products":
        wide = z.to(dtype)
        wide = wide - wide.mean(0)
        return cls(matmul(wide, wide.T), z.shape[1])

    def gram(self, kernel: str) -> Float[Tensor, "example example"]:
        """HKH."""
        if kernel not in _KERNELS:
            raise unknown_name("kernel", kernel, _KERNELS)
        if kernel == "linear":
            return self.inner / self.d
        if kernel == "imq":
            k = self._square(1.0)
            k.div_(-(k + 2 * self.d))
        elif kernel == "gaussian_50":
            k = self._square(-1 / (2 * KERNEL_WIDTH**2 * self.d)).expm1_()
        else:
            square = self._square(1.0)
            k = square.div_(-2 * _median(square, self.inner.diagonal())).expm1_()
        mean = k.mean(0)
        return k.sub_(mean - mean.mean()).sub_(mean[:, None])

    def _square(self, scale: float) -> Float[Tensor, "example example"]:
        """Squared distances times `scale`, in as few passes over the matrix as it takes."""
        power = scale * self.inner.diagonal()
        k = torch.add(power, self.inner, alpha=-2 * scale).add_(power[:, None])
        k = k.clamp_(min=0) if scale > 0 else k.clamp_(max=0)
        return k.fill_diagonal_(0)


def _median(square: Tensor, power: Tensor) -> Tensor:
    """Median squared distance of examples that differ: of all, it would be 0 for most labels; NaN where none differ."""
    every = square.flatten()
    alike = int((every <= 1e-12 * power.amax()).sum())
    apart = len(every) - alike - int(every.isnan().sum())
    if not apart:
        return every.new_tensor(torch.nan)
    # The lower middle of those apart, by its place among all: what is not a number comes last.
    place = alike + (apart - 1) // 2
    if every.device.type != "cpu":
        return every.kthvalue(place + 1).values
    return every.new_tensor(np.partition(every.numpy(), place)[place])  # a fifth of the time


@dataclass(frozen=True)
class _Kernel:
    """A centred Gram matrix K, and its normalised form R = K(K + cI)⁻¹ = I − c(K + cI)⁻¹ with c = εn, by Cholesky."""

    k: Float[Tensor, "example example"]
    r: Float[Tensor, "example example"]

    @classmethod
    def of(cls, products: _Products, kernel: str) -> "_Kernel":
        k = products.gram(kernel)
        spread, c = float(k.trace()), len(k) * RIDGE_STRENGTH
        # One value that is not finite has spread to the whole centred matrix; no spread at all is no dependence to measure.
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
        """tr R_A R_B from entries: one product of numbers, none of matrices."""
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
    """Sum of the products of entries, row by row, so that single precision adds up few of them."""
    wide = torch.promote_types(a.dtype, b.dtype)
    return (a.to(wide) * b.to(wide)).sum(1).double().sum()


@dataclass(frozen=True)
class _Label:
    """Eigenvalues λ and eigenvectors of Y's centred Gram matrix, and the weights λ/(λ + εn) of its normalised form."""

    values: Float[Tensor, " component"]
    weights: Float[Tensor, " component"]
    vectors: Float[Tensor, "example component"]
    main: Bool[Tensor, " component"]
    """Components that carry less than a thousandth of the first cannot move a floor; a binary label has only the first."""

    @classmethod
    def of(cls, y: Float[Tensor, "example q"], kernel: str) -> "_Label":
        values, vectors = _factor(y, kernel)
        if not len(values):
            blank = values.new_full((1,), torch.nan)
            return cls(blank, blank, values.new_ones(len(y), 1), torch.ones(1, dtype=torch.bool))
        weights = values / (values + len(y) * RIDGE_STRENGTH)
        main = weights >= 1e-3 * weights.amax()
        return cls(values, weights, vectors, main)


def _factor(y: Tensor, kernel: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of Y's centred Gram matrix: as many as Y has distinct values, less one."""
    distinct, index = torch.unique(y, dim=0, return_inverse=True)
    if len(distinct) < 2 or not y.isfinite().all():
        return y.new_zeros(0).double(), y.new_zeros(len(y), 0).double()
    if len(distinct) > len(y) // 4 or kernel == "gaussian_median":
        values, vectors = torch.linalg.eigh(centred_gram(y, kernel))
    else:
        # Few distinct labels: a small eigenproblem of the label's values, spread over the examples.
        counts = torch.bincount(index).double()
        small = _weighted_label_gram(distinct, counts, kernel)
        values, inner = torch.linalg.eigh(small)
        vectors = (inner / counts.sqrt()[:, None])[index]
    keep = values > 1e-12 * values.amax()
    return values[keep], vectors[:, keep]


def _weighted_label_gram(distinct: Tensor, counts: Tensor, kernel: str) -> Tensor:
    """N^½ (I − 1wᵀ) K (I − w1ᵀ) N^½ over the distinct values, w their shares: the same eigenvalues as over the examples."""
    share = counts / counts.sum()
    # Centring twice over the distinct values changes nothing that centring by shares does not undo.
    k = centred_gram(distinct, kernel)
    k = k - (share @ k)[None] - (k @ share)[:, None] + share @ k @ share
    return counts.sqrt()[:, None] * k * counts.sqrt()


def _check(n: int, *others: int) -> None:
    if n < 4 or any(m != n for m in others):
        raise BadInput(
            f"dependence was given {n}, {', '.join(map(str, others))} examples. Give at least 4, equally many of each."
        )


_SHARED = frozenset({"permutation", "rotation", "translation"})
metrics = (
    Metric("hsic", hsic, "variables", 0.0, None, _SHARED, "float64 formula with two centring matrices"),
    Metric("nhsic", nhsic, "variables", 0.0, None, _SHARED, "float64 formula with two inverses"),
)
