"""Null of cross-fitted scores: out-of-fold scores of probes that are fitted again under permuted labels.

With scores held fixed, as for a single split, the null would be too narrow: each pair of examples counts twice, once with either as
training data. So every permutation fits again, in closed form: mass-mean as it is, ridge and logistic regression by least squares at
their strength (one Newton step for the latter), observed labels and permuted ones alike. The out-of-fold predictions of least squares
follow from the hat matrix, see `probes.ridge`.
"""

from collections.abc import Callable
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
_STEPS = 2**22
"""Whole numbers that the scores of a site become on either side of zero; closer scores are equal but for rounding."""
_BLOCK = 2**24
"""Predictions that are held at once."""


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
    labels = torch.cat([y[None], y[permutations[:REFITS]]])
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
            fitted = predict(labels.T.float())
            blocks.append(torch.stack([permuted_r2(fitted[..., b], labels[b][None])[0] for b in range(len(labels))]))
            continue
        of_class = [labels == c if c is not None else labels for c in classes]
        areas = [_aurocs(predict(one.T.float()), one, folds) for one in of_class]
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
) -> Callable[[Tensor], Tensor]:
    features, power = basis.features[at], basis.squared_norms[at]
    scaled = features / (power + penalty[:, None]).sqrt()[:, None]
    # The intercept is not penalised.
    scaled = torch.cat([scaled, torch.full_like(scaled[..., :1], scaled.shape[1] ** -0.5)], 2)
    members = [(folds == fold).nonzero()[:, 0] for fold in range(int(folds.max()) + 1)]
    parts = [scaled[:, inside] for inside in members]
    factors = []
    for part in parts:
        short = part if part.shape[1] < part.shape[2] else part.mT.contiguous()
        hat = matmul(short, short.mT.contiguous())
        factors.append(torch.linalg.cholesky(torch.eye(hat.shape[1]).to(hat) - hat))

    def predict(target: Float[Tensor, "example labelling"]) -> Float[Tensor, "site example labelling"]:
        centre = target.mean(0)
        centred = (target - centre).expand(len(scaled), -1, -1).contiguous()
        inner = [
            matmul(part.mT.contiguous(), centred[:, i].contiguous()) for part, i in zip(parts, members, strict=True)
        ]
        whole = torch.stack(inner).sum(0)
        fitted = torch.empty_like(centred)
        for part, inside, factor, own in zip(parts, members, factors, inner, strict=True):
            if part.shape[1] < part.shape[2]:
                fitted[:, inside] = torch.cholesky_solve(matmul(part, whole - own), factor)
            else:  # (I − RRᵀ)⁻¹ R = R (I − RᵀR)⁻¹
                fitted[:, inside] = matmul(part, torch.cholesky_solve(whole - own, factor))
        return fitted + centre

    return predict


def _mass_mean_predictions(x: Tensor, folds: Tensor) -> Callable[[Tensor], Tensor]:
    centred = x - x.mean(1, keepdim=True)
    members = [(folds == fold).nonzero()[:, 0] for fold in range(int(folds.max()) + 1)]

    def predict(target: Float[Tensor, "example labelling"]) -> Float[Tensor, "site example labelling"]:
        sums = [matmul(centred[:, i].mT.contiguous(), target[i].expand(len(x), -1, -1).contiguous()) for i in members]
        whole = torch.stack(sums).sum(0)
        total = torch.zeros_like(whole[..., :1])  # of centred rows
        fitted = x.new_empty(len(x), len(folds), target.shape[1])
        for inside, positive in zip(members, sums, strict=True):
            count = target.sum(0) - target[inside].sum(0)
            other = len(folds) - len(inside) - count
            everything = total - centred[:, inside].sum(1)[..., None]
            plus = (whole - positive) / count
            direction = plus - (everything - (whole - positive)) / other
            # As the probe does, with the score 0 half-way between the means.
            fitted[:, inside] = matmul(centred[:, inside], direction)
        return fitted

    return predict


def _aurocs(
    fitted: Float[Tensor, "site example labelling"],
    labels: Bool[Tensor, "labelling example"],
    folds: Int[Tensor, " example"],
) -> Float[Tensor, "labelling site"]:
    """AUROC of the pairs within folds under each labelling."""
    won = fitted.new_zeros(len(labels), len(fitted), dtype=torch.float64)
    pairs = fitted.new_zeros(len(labels), 1, dtype=torch.float64)
    for fold in range(int(folds.max()) + 1):
        inside = (folds == fold).nonzero()[:, 0]
        own = labels[:, inside]
        positive = own.sum(1, keepdim=True).double()
        ranks = _rank_sums(fitted[:, inside].permute(2, 0, 1), own)
        won += ranks - positive * (positive + 1) / 2
        pairs += positive * (len(inside) - positive)
    return (won / pairs).where(~fitted.isnan().any(1).T, torch.nan)


def _rank_sums(
    scores: Float[Tensor, "labelling site example"], labels: Bool[Tensor, "labelling example"]
) -> Float[Tensor, "labelling site"]:
    """Sum of the ranks of the positives, ties at their mean.

    Scores become whole numbers with the label as their last bit, and values are sorted instead of indices: ten times as fast. Equal scores
    are then ordered by label; at sites with such, the mean with the opposite order counts them half.
    """
    reach = scores.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    whole = (scores / reach * _STEPS).round().nan_to_num().to(torch.int32) * 2
    bit = labels[:, None].to(torch.int32)
    place = np.arange(1, scores.shape[-1] + 1, dtype=np.float32)

    def sums(keys: Int[Tensor, "labelling site example"], positive: int) -> tuple[np.ndarray, np.ndarray]:
        ordered = np.sort(keys.cpu().numpy(), axis=-1)
        return ((ordered & 1) == positive).astype(np.float32) @ place, ordered[0] >> 1

    result, first = sums(whole + bit, 1)
    tied = np.flatnonzero((first[:, 1:] == first[:, :-1]).any(-1))
    if len(tied):
        result[:, tied] = (result[:, tied] + sums(whole[:, tied] + 1 - bit, 0)[0]) / 2
    return torch.from_numpy(result).double().to(device=scores.device)
