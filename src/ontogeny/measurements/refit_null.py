"""Null of cross-fitted scores: out-of-fold scores of probes that are fitted again under permuted labels.

With scores held fixed, as for a single split, the null would be too narrow: each pair of examples counts twice, once with either as
training data. So every permutation fits again, in closed form: mass-mean as it is, ridge and logistic regression by least squares at
their strength (one Newton step for the latter), observed labels and permuted ones alike. The out-of-fold predictions of least squares
follow from the hat matrix, see `probes.ridge`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ontogeny.linalg.matmul import matmul
from ontogeny.linalg.principal_axes import PrincipalAxes
from ontogeny.statistics.permutation import permuted_r2

REFITS = 200
"""At most so many permutations are fitted again."""
_STEP = 8
"""Scores are equal if they differ by less, in units of the last bit of the largest."""
_BLOCK = 2**24
"""Predictions that are held at once."""
_DAMPING = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


_Predictions = Callable[[Float[Tensor, "labelling example"]], Iterator[Float[Tensor, "site labelling held"]]]
"""Out-of-fold predictions of each fold's examples in turn, from the targets of each labelling."""


@dataclass(frozen=True, eq=False)
class RefitNull:
    observed: Float[Tensor, " site"]
    p: Float[Tensor, " site"]
    """One-sided p of each site alone."""
    maxima: Float[Tensor, " sample"]
    """Best score over the sites under each permutation."""
    mean: Float[Tensor, " site"]
    std: Float[Tensor, " site"]
    skew: Float[Tensor, " site"]

    def tensors(self, key: str) -> dict[str, Tensor]:
        """Tensors of the null under a prefix, to be kept with the scores of a unit."""
        return {f"{key}/null_{name}": value.float().cpu() for name, value in vars(self).items()}


def refit_null(
    method: str,
    x: Float[Tensor, "site example d"],
    y: Shaped[Tensor, " example"],
    folds: Int[Tensor, " example"],
    permutations: Int[Tensor, "sample example"],
    *,
    basis: PrincipalAxes,
    strength: Float[Tensor, " site"] | None,
) -> RefitNull:
    """The main score of one probe, fitted on the labels and on each permutation of them, at every site.

    Args:
        method: mass_mean, logistic or ridge.
        basis: Principal axes of all examples.
        strength: That of the probe of all examples; None for mass-mean.
    """
    labels = torch.cat([y[None], y[permutations]])
    classes = [None] if y.dtype != torch.int64 else [int(c) for c in y.unique()]
    size = max(1, _BLOCK // (len(y) * len(labels)))
    blocks = []
    for start in range(0, len(x), size):
        at = slice(start, start + size)
        if method == "mass_mean":
            predict = _mass_mean_predictions(x[at], folds)
        else:
            assert strength is not None
            # The logistic loss has curvature ¼ at zero.
            penalty = 4 / strength[at] if method == "logistic" else strength[at]
            predict = _least_squares_predictions(basis, at, penalty, folds)
        if y.is_floating_point():
            fitted = x.new_empty(len(x[at]), len(labels), len(y))
            for inside, held_out in zip(_members(folds), predict(labels.float()), strict=True):
                fitted[..., inside] = held_out
            blocks.append(torch.stack([permuted_r2(fitted[:, b], labels[b][None])[0] for b in range(len(labels))]))
            continue
        of_class = [labels == c if c is not None else labels for c in classes]
        few = len(labels) if size > 1 else max(1, _BLOCK // (4 * len(y)))
        areas = [
            torch.cat([_aurocs(predict(some.float()), some, folds) for some in torch.split(one, few)])
            for one in of_class
        ]
        blocks.append(torch.stack(areas).nanmean(0))
    scores = torch.cat(blocks, 1).double()
    observed, null = scores[0], scores[1:]
    reached = (null >= observed - 1e-9).sum(0)
    spread = null.std(0)
    known = ~observed.isnan()
    return RefitNull(
        observed,
        ((1 + reached).double() / (1 + len(null))).where(known, torch.nan),
        null.nan_to_num(nan=-torch.inf).amax(1),
        null.mean(0),
        spread,
        ((null - null.mean(0)) / spread).pow(3).mean(0),
    )


def _least_squares_predictions(
    basis: PrincipalAxes, at: slice, penalty: Float[Tensor, " site"], folds: Int[Tensor, " example"]
) -> _Predictions:
    features, power = basis.features[at], basis.squared_norms[at]
    scaled = features / (power + penalty[:, None]).sqrt()[:, None]
    # The intercept is not penalised.
    scaled = torch.cat([scaled, torch.full_like(scaled[..., :1], scaled.shape[1] ** -0.5)], 2)
    steps = []
    for inside in _members(folds):
        part = scaled[:, inside]
        narrow = part.shape[1] < part.shape[2]
        short = part if narrow else part.mT.contiguous()
        hat = matmul(short, short.mT)
        # (I − RRᵀ)⁻¹ R = R (I − RᵀR)⁻¹, by the shorter side.
        inverse = _inverse(torch.eye(hat.shape[1]).to(hat) - hat)
        steps.append((part.mT, inverse) if narrow else (matmul(inverse, short), None))

    def predict(target: Float[Tensor, "labelling example"]) -> Iterator[Float[Tensor, "site labelling held"]]:
        centre = target.mean(1, keepdim=True)
        inner = _fold_products(target - centre, scaled, folds)
        whole = sum(inner[1:], inner[0])
        for (readout, after), own in zip(steps, inner, strict=True):
            held_out = matmul(whole - own, readout)
            yield (held_out if after is None else matmul(held_out, after)).add_(centre)

    return predict


def _inverse(rest: Float[Tensor, "site k k"]) -> Float[Tensor, "site k k"]:
    """Inverse of what the fit of all examples leaves of a fold.

    A weak penalty in more dimensions than examples leaves less than float32 resolves, even below zero: such sites get the least damping,
    from 1e-6, that makes them positive definite. The observed score and its null are damped alike.
    """
    factor, failed = torch.linalg.cholesky_ex(rest)
    identity = torch.eye(rest.shape[1]).to(rest)
    for damping in _DAMPING:
        at = failed.nonzero()[:, 0]
        if not len(at):
            break
        factor[at], failed[at] = torch.linalg.cholesky_ex(rest[at] + damping * identity)
    return torch.cholesky_inverse(factor)


def _mass_mean_predictions(x: Float[Tensor, "site example d"], folds: Int[Tensor, " example"]) -> _Predictions:
    centred = x - x.mean(1, keepdim=True)
    totals = [centred[:, inside].sum(1) for inside in _members(folds)]

    def predict(target: Float[Tensor, "labelling example"]) -> Iterator[Float[Tensor, "site labelling held"]]:
        sums = _fold_products(target, centred, folds)
        whole = sum(sums[1:], sums[0])
        for inside, positive, total in zip(_members(folds), sums, totals, strict=True):
            share = (target.sum(1) - target[:, inside].sum(1)) / (len(folds) - len(inside))
            # The difference of the class means outside the fold, but for its scale; all rows together sum to zero.
            direction = (whole - positive).add_(share[:, None] * total[:, None])
            yield matmul(direction, centred[:, inside].mT)

    return predict


def _members(folds: Int[Tensor, " example"]) -> list[Int[Tensor, " held"]]:
    """The examples of each fold."""
    return [(folds == fold).nonzero()[:, 0] for fold in range(int(folds.max()) + 1)]


def _fold_products(
    target: Float[Tensor, "labelling example"], x: Float[Tensor, "site example d"], folds: Int[Tensor, " example"]
) -> list[Float[Tensor, "site labelling d"]]:
    """Sums of the rows of each fold, weighted by the targets; one product serves all sites."""
    wide = x.transpose(0, 1).reshape(x.shape[1], -1)
    products = [matmul(target[:, inside], wide[inside]) for inside in _members(folds)]
    return [product.reshape(len(target), len(x), -1).transpose(0, 1).contiguous() for product in products]


def _aurocs(
    predictions: Iterable[Float[Tensor, "site labelling held"]],
    labels: Bool[Tensor, "labelling example"],
    folds: Int[Tensor, " example"],
) -> Float[Tensor, "labelling site"]:
    """AUROC of the pairs within folds under each labelling."""
    won, pairs = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for inside, held_out in zip(_members(folds), predictions, strict=True):
        own = labels[:, inside]
        positive = own.sum(1).double()
        won = won + _rank_sums(held_out, own) - positive * (positive + 1) / 2
        pairs = pairs + positive * (len(inside) - positive)
    return (won / pairs).T


def _rank_sums(
    scores: Float[Tensor, "site labelling example"], labels: Bool[Tensor, "labelling example"]
) -> Float[Tensor, "site labelling"]:
    """Sum of the ranks of the positives, ties at their mean; NaN if a score is.

    Scores are moved above zero, where floats are ordered as the whole numbers of their bits; their last bits are rounding errors, and the
    very last becomes the label: values are then sorted instead of indices, ten times as fast. Scores that are equal so are ordered by
    label; at sites with such, the mean with the opposite order counts them half.
    """
    low, high = scores.amin(-1, keepdim=True), scores.amax(-1, keepdim=True)
    above = 2 * torch.maximum(high, -low)
    # Counted from the lowest score, so that equal scores do not fall on both sides of a step.
    first_step = above.view(torch.int32) - _STEP // 2
    bits = (scores + (above - low)).view(torch.int32).sub_(first_step).bitwise_and_(-_STEP)
    place = np.arange(1, scores.shape[-1] + 1, dtype=np.float32)

    def sums(keys: Int[Tensor, "site labelling example"], positive: int) -> tuple[np.ndarray, np.ndarray]:
        ordered = keys.cpu().numpy()
        ordered.sort(axis=-1)
        first = ordered[:, 0] >> 1
        ordered &= 1
        return (ordered == positive).astype(np.float32) @ place, first

    bit = labels.to(torch.int32)
    result, first = sums(bits | bit, 1)
    tied = np.flatnonzero((first[:, 1:] == first[:, :-1]).any(-1))
    if len(tied):
        result[tied] = (result[tied] + sums(bits[tied] | (1 - bit), 0)[0]) / 2
    return torch.from_numpy(result).double().to(scores.device).where(~low[..., 0].isnan(), torch.nan)
