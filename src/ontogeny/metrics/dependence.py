"""Dependence of activations on the input and on the label, by HSIC and normalised HSIC. Not mutual information: no nats.

Kernels: `gaussian_50` is that of arXiv:2402.19465, exp(−‖z−z′‖²/(2·50²·d)), almost linear at this width; `gaussian_median` puts the
median squared distance in place of 50²·d; `linear` is ⟨z, z′⟩/d; `imq` is 2d/(2d + ‖z−z′‖²). HSIC: Gretton et al. 2005; the
normalised form tr R_A R_B with R = K(K + εnI)⁻¹: Fukumizu et al. 2008.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.errors import BadInput, unknown
from ontogeny.metrics import Metric

KERNELS = ("gaussian_50", "gaussian_median", "linear", "imq")
WIDTH = 50.0
RIDGE = 1e-5


@dataclass(frozen=True)
class Dependence:
    """Of each site's activations T on the input X and the label Y; NaN where one of the two has no spread."""

    hsic_tx: Float[Tensor, " site"]
    hsic_ty: Float[Tensor, " site"]
    nhsic_tx: Float[Tensor, " site"]
    nhsic_ty: Float[Tensor, " site"]
    effective_dimension: Float[Tensor, " site"]
    """tr K(K + εnI)⁻¹ of the activations."""
    hsic_ty_shuffled: "Floor | None" = None
    nhsic_ty_shuffled: "Floor | None" = None


@dataclass(frozen=True)
class Floor:
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
) -> Dependence:
    """Both targets, and the floor of the label, from one centred Gram matrix and one Cholesky factor a site.

    T and X are z-scored feature by feature, Y is taken as it is (0 and 1, one-hot, a number), as the paper does.
    """
    n = t.shape[1]
    _check(n, len(x), len(y))
    gram_x, gram_t = centred_gram(zscore(x[None]), kernel), centred_gram(zscore(t), kernel)
    rest_x, rest_t = _rest(gram_x), _rest(gram_t)
    values, vectors = _factor(y, kernel)
    weights = values / (values + n * RIDGE)

    blank = torch.where(_known(gram_t), 0.0, torch.nan)
    blank_tx = blank + torch.where(_known(gram_x), 0.0, torch.nan)
    blank_ty = blank if len(values) else torch.full_like(blank, torch.nan)
    forms = _quadratic(vectors.T[None], gram_t, rest_t)
    shuffled: list[Floor] = []
    if permutations is not None:
        # Components that carry less than a thousandth of the first cannot move a floor; a binary label has only the first.
        main = weights > 1e-3 * weights.max() if len(weights) else weights > 0
        moved = _quadratic(vectors[:, main].T[:, permutations].transpose(0, 1), gram_t, rest_t)
        samples = (moved[0] @ values[main] / (n - 1) ** 2, moved[1] @ weights[main])
        shuffled = [Floor(s.mean(1) + blank_ty, s.quantile(0.975, dim=1) + blank_ty) for s in samples]
    # tr R_T R_X with R = I − A, A = c(K + cI)⁻¹: one product of entries, no product of matrices.
    traces = rest_t.diagonal(dim1=1, dim2=2).sum(1), rest_x.diagonal(dim1=1, dim2=2).sum(1)
    return Dependence(
        (gram_t * gram_x).sum((1, 2)) / (n - 1) ** 2 + blank_tx,
        forms[0][:, 0] @ values / (n - 1) ** 2 + blank_ty,
        n - traces[0] - traces[1] + (rest_t * rest_x).sum((1, 2)) + blank_tx,
        forms[1][:, 0] @ weights + blank_ty,
        n - traces[0] + blank,
        *shuffled,
    )


def hsic(
    a: Float[Tensor, "example p"], b: Float[Tensor, "example q"], kernel: str = "gaussian_50"
) -> Float[Tensor, ""]:
    """Hilbert–Schmidt independence criterion of variables as given, ≥ 0; unchanged by rotations and translations of either."""
    _check(len(a), len(b), len(a))
    ga, gb = centred_gram(a[None], kernel), centred_gram(b[None], kernel)
    return torch.where(_known(ga) & _known(gb), (ga * gb).sum((1, 2)), torch.nan)[0] / (len(a) - 1) ** 2


def nhsic(
    a: Float[Tensor, "example p"], b: Float[Tensor, "example q"], kernel: str = "gaussian_50"
) -> Float[Tensor, ""]:
    """Normalised HSIC of variables as given, ≥ 0 and at most the smaller effective dimension; same invariances."""
    _check(len(a), len(b), len(a))
    ga, gb = centred_gram(a[None], kernel), centred_gram(b[None], kernel)
    eye = torch.eye(len(a), dtype=ga.dtype, device=ga.device)
    return torch.where(_known(ga) & _known(gb), ((eye - _rest(ga)) * (eye - _rest(gb))).sum((1, 2)), torch.nan)[0]


def nhsic_ty_cap(p: float, *, width: float = WIDTH, ridge: float = RIDGE) -> float:
    """The most that nHSIC with a binary label of positive rate p can be: .909 at ½, .783 at .1 (width 50)."""
    if not 0 < p < 1:
        raise BadInput(f"a label with positive rate {p} has no dependence to cap. Give a rate between 0 and 1.")
    value = 2 * p * (1 - p) * -float(torch.expm1(torch.tensor(-0.5 / width**2, dtype=torch.float64)))
    return value / (value + ridge)


def zscore(x: Float[Tensor, "site example d"]) -> Float[Tensor, "site example d"]:
    """Each feature less its mean over its standard deviation; 0 for a feature without spread."""
    var, mean = torch.var_mean(x.float() if x.dtype != torch.float64 else x, 1, keepdim=True)
    constant = var.sqrt() <= 10 * torch.finfo(var.dtype).eps * mean.abs()
    return (x - mean) * torch.where(constant, 0, var.rsqrt())


def centred_gram(z: Float[Tensor, "site example d"], kernel: str) -> Float[Tensor, "site example example"]:
    """HKH in float64, from K − 1: at a great width every entry of K is close to 1, and the digits that matter are in the rest."""
    wide = z.double() - z.double().mean(1, keepdim=True)
    inner = wide @ wide.mT
    if kernel == "linear":
        return inner / z.shape[2]
    power = inner.diagonal(dim1=1, dim2=2)
    square = (power[:, :, None] + power[:, None] - 2 * inner).clamp_(min=0)
    match kernel:
        case "gaussian_50":
            k = square.mul_(-0.5 / (WIDTH**2 * z.shape[2])).expm1_()
        case "gaussian_median":
            k = square.mul_(-0.5 / _median(square, power)[:, None, None]).expm1_()
        case "imq":
            k = square.div_(-(square + 2 * z.shape[2]))
        case _:
            raise unknown("kernel", kernel, KERNELS)
    k -= k.mean(2, keepdim=True)
    return k.sub_(k.mean(1, keepdim=True))


def _median(square: Tensor, power: Tensor) -> Tensor:
    """Median squared distance of examples that differ: of all, it would be 0 for most labels."""
    rounding = 1e-12 * power.amax(1)[:, None, None]
    return torch.where(square > rounding, square, torch.nan).flatten(1).nanmedian(1).values


def _known(gram: Tensor) -> Tensor:
    """Finite, and not without any spread."""
    return gram.isfinite().all(2).all(1) & (gram.diagonal(dim1=1, dim2=2).sum(1) > 1e-14)


def _rest(gram: Tensor) -> Tensor:
    """c (K + cI)⁻¹ with c = εn, by Cholesky: what the normalised kernel R leaves of the identity."""
    n = gram.shape[1]
    eye = torch.eye(n, dtype=gram.dtype, device=gram.device)
    safe = torch.where(gram.isfinite().all(2).all(1)[:, None, None], gram, eye)
    return torch.cholesky_inverse(torch.linalg.cholesky(safe + n * RIDGE * eye)).mul_(n * RIDGE)


def _factor(y: Tensor, kernel: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of Y's centred Gram matrix: as many as Y has distinct values, less one."""
    distinct, index = torch.unique(y, dim=0, return_inverse=True)
    if len(distinct) < 2 or not y.isfinite().all():
        return y.new_zeros(0).double(), y.new_zeros(len(y), 0).double()
    if len(distinct) > len(y) // 4 or kernel == "gaussian_median":
        values, vectors = torch.linalg.eigh(centred_gram(y[None], kernel)[0])
    else:
        # Few distinct labels: a small eigenproblem of the label's values, spread over the examples.
        counts = torch.bincount(index).double()
        small = _weighted_gram(distinct, counts, kernel)
        values, inner = torch.linalg.eigh(small)
        vectors = (inner / counts.sqrt()[:, None])[index]
    keep = values > 1e-12 * values.amax()
    return values[keep], vectors[:, keep]


def _weighted_gram(distinct: Tensor, counts: Tensor, kernel: str) -> Tensor:
    """N^½ (I − 1wᵀ) K (I − w1ᵀ) N^½ over the distinct values, w their shares: the same eigenvalues as over the examples."""
    share = counts / counts.sum()
    # Centring twice over the distinct values changes nothing that centring by shares does not undo.
    k = centred_gram(distinct[None], kernel)[0]
    k = k - (share @ k)[None] - (k @ share)[:, None] + share @ k @ share
    return counts.sqrt()[:, None] * k * counts.sqrt()


def _quadratic(v: Tensor, gram: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """vᵀKv and vᵀRv of each site and sample, for each component: v is [sample, component, example]."""
    rows = v.flatten(0, 1)
    norm = rows.square().sum(1)
    parts = [torch.einsum("re,ser->sr", rows, matrix @ rows.T) for matrix in (gram, rest)]
    shape = (len(gram), *v.shape[:2])
    return parts[0].reshape(shape), (norm - parts[1]).reshape(shape)


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
