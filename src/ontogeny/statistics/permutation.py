"""Permutation nulls that respect groups, and the max-statistic over all cells of a map (Westfall & Young 1993; Nichols & Holmes 2002).

The scores of the held-out examples stay fixed and their labels are permuted, so one set of permutations serves every site and
checkpoint: use the same one throughout, and combine checkpoints by `torch.maximum` of their maxima.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.matmul import matmul
from ontogeny.statistics.unique import unique_inverse, unique_values

_TINY = 1e-9
"""Tolerance for equal scores: a null score this close counts as reaching the observed one."""
_PACKED_FROM = 4096
"""Numbers of a row from which they are sorted with their places; equal ones may then be in another order."""
_BLOCK = 2**21
"""Entries of a table of labellings that is held at once."""


def group_permutations(
    y: Shaped[Tensor, " example"],
    groups: Int[Tensor, " example"],
    *,
    samples: int = 1000,
    seed: int = 0,
    first: int | None = None,
) -> Int[Tensor, "sample example"]:
    """Index of the example whose label each example gets: `y[result]` are the permuted labels.

    Labels are shuffled inside groups of mixed labels; groups of one label swap labels as blocks, which keeps them uniform.

    Args:
        first: Only so many of the samples, the same as among all of them.

    Raises:
        BadInput: all labels are equal.
    """
    generator = torch.Generator().manual_seed(seed)
    number, member = unique_inverse(groups)
    leader = torch.full((number,), len(y)).scatter_reduce_(0, member, torch.arange(len(y)), "amin")
    differs = torch.zeros(number, dtype=torch.bool).index_put_((member[y != y[leader[member]]],), torch.tensor(True))
    pure = (~differs).nonzero()[:, 0]
    if not differs.any() and len(unique_values(y[leader[pure]])) < 2:
        raise BadInput(
            f"a permutation test needs two classes, got equal labels of {len(y)} examples in {number} groups: add a class."
        )
    mixed = differs[member]
    # Random numbers of a seed stay in their order: those of all swaps, then those of each block of shuffles, if there are any.
    swapped = torch.rand(samples, len(pure), generator=generator) if mixed.any() else None
    # Sorting by group plus noise shuffles the examples inside each group and keeps the groups in place.
    places = member.double() * 2
    slots = places.argsort(stable=True)
    result = torch.empty(samples if first is None else min(first, samples), len(y), dtype=torch.int32)
    for rows in torch.arange(len(result)).split(max(1, _BLOCK // len(y))):  # type: ignore[no-untyped-call]
        source = torch.arange(number).repeat(len(rows), 1)
        chances = torch.rand(len(rows), len(pure), generator=generator) if swapped is None else swapped[rows]
        source[:, pure] = pure[_order_of_chances(chances)]
        result[rows] = leader[source][:, member].int()
        if swapped is not None:
            noise = torch.rand(len(rows), len(y), generator=generator, dtype=torch.float64)
            shuffled = _argsort(noise.add_(places))
            within = torch.empty_like(shuffled).scatter_(1, slots.expand(len(rows), -1), shuffled)
            result[rows] = torch.where(mixed, within.int(), result[rows])
    return result


def permuted_labels(
    y: Shaped[Tensor, " example"], permutations: Int[Tensor, "sample example"]
) -> Shaped[Tensor, "sample example"]:
    """`y[permutations]`, in blocks."""
    return torch.cat([y[block] for block in permutations.split(max(1, _BLOCK // len(y)))])  # type: ignore[no-untyped-call]


def _order_of_chances(chances: Float[Tensor, "row group"]) -> Int[Tensor, "row group"]:
    """`chances.argsort(1)` of numbers from 0 to 1."""
    if chances.shape[1] < _PACKED_FROM:
        return chances.argsort(1)
    # Such floats are ordered as their bits; with the place below them, a sort gives the order, ten times as fast.
    keys = chances.numpy().view(np.int32).astype(np.int64) << 32
    keys |= np.arange(chances.shape[1])
    keys.sort(1)
    return torch.from_numpy(keys & 0xFFFFFFFF)


def average_ranks(scores: Float[Tensor, "*batch example"]) -> Float[Tensor, "*batch example"]:
    """Ranks from 1 along the last axis, ties at their mean; float64."""
    rows = scores.reshape(-1, scores.shape[-1])
    order = _argsort(rows)
    ordered = rows.gather(-1, order)
    place = torch.arange(1, rows.shape[-1] + 1, dtype=torch.float64, device=rows.device).expand(rows.shape)
    differs = ordered[:, 1:] != ordered[:, :-1]
    tied = (~differs).any(-1).nonzero()[:, 0]
    if len(tied):
        place = place.index_copy(0, tied, _mean_places(differs[tied]))
    return torch.empty_like(ordered, dtype=torch.float64).scatter_(-1, order, place).reshape(scores.shape)


def _argsort(rows: Float[Tensor, "row example"]) -> Int[Tensor, "row example"]:
    # On a CPU, NumPy sorts short rows several times as fast as PyTorch.
    if rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(rows.detach().numpy().argsort(-1)).to(device=rows.device)
    return rows.argsort(-1)


def _mean_places(differs: Bool[Tensor, "row gap"]) -> Float[Tensor, "row example"]:
    """Place of each entry of sorted rows, from 1, at the mean of its run of equal scores; no search for every entry."""
    place = torch.arange(differs.shape[-1] + 1, dtype=torch.float64, device=differs.device)
    first = torch.where(torch.nn.functional.pad(differs, (1, 0), value=True), place, 0).cummax(-1).values
    ends = torch.where(torch.nn.functional.pad(differs, (0, 1), value=True), place, torch.inf)
    last = ends.flip(-1).cummin(-1).values.flip(-1)
    return (first + last) / 2 + 1


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """Scores of cells and those under permuted labels: float64 and of one function, so that equal scores count as equal."""

    observed: Float[Tensor, " cell"]
    p: Float[Tensor, " cell"]
    """One-sided p of each cell alone: share of labellings, the observed one included, that reach its score; NaN stays NaN."""
    maxima: Float[Tensor, " sample"]
    """Best score over the cells under each permutation."""


def permutation_test(
    score: Callable[[Any], Float[Tensor, "labelling cell"]],
    y: Shaped[Tensor, " example"],
    labels: Shaped[Tensor, "sample example"],
) -> PermutationTest:
    """Compare the score of every cell with its scores under permuted labels.

    Args:
        score: Scores of every cell under each of some labellings, such as a partial `permuted_r2`.
        labels: `y` under each permutation.
    """
    observed = score(y[None])[0]
    maxima, reached = [], torch.zeros(observed.shape, dtype=torch.long, device=observed.device)
    for block in labels.split(max(1, _BLOCK // max(len(y), len(observed)))):  # type: ignore[no-untyped-call]
        null = score(block)
        maxima.append(_maxima(null))
        reached += (null >= observed - _TINY).sum(0)
    p = torch.where(observed.isnan(), torch.nan, (1 + reached).double() / (1 + len(labels)))
    return PermutationTest(observed.double(), p, torch.cat(maxima).double())


def auroc_test(
    scores: Float[Tensor, "site example"], y: Bool[Tensor, " example"], labels: Bool[Tensor, "sample example"]
) -> PermutationTest:
    """`permutation_test` of the area under the ROC curve of every site; the scores are ranked once."""
    ranks = average_ranks(scores)
    ranks[scores.isnan().any(-1)] = torch.nan
    positive = y.double().sum()
    if (labels.sum(1) != positive).any():
        return permutation_test(partial(_auroc_of_ranks, ranks), y, labels)
    # With equally many positives, the sum of their ranks orders labellings as AUROC does.
    test = permutation_test(partial(_rank_sums, ranks), y, labels)
    observed, maxima = (_auroc_of_sums(sums, positive, len(y)) for sums in (test.observed, test.maxima))
    return PermutationTest(observed, torch.where(observed.isnan(), torch.nan, test.p), maxima)


def least_p(y: Shaped[Tensor, " example"], labels: Shaped[Tensor, "sample example"]) -> float:
    """The least p that a test by these permutations can give: a permutation that changes no label reaches every score."""
    return (1 + int((labels == y).all(1).sum())) / (1 + len(labels))


def _rank_sums(
    ranks: Float[Tensor, "site example"], labels: Bool[Tensor, "labelling example"]
) -> Float[Tensor, "labelling site"]:
    """Sum of the ranks of the positives; exact, since it is a multiple of a half and small enough for its precision."""
    count = labels.shape[1]
    kind = torch.float32 if count * (count + 1) < 2**24 else torch.float64
    return matmul(labels.to(kind), ranks.to(kind).mT)


def _auroc_of_sums(
    sums: Float[Tensor, "*cell"], positive: Float[Tensor, "*#cell"], count: int
) -> Float[Tensor, "*cell"]:
    return (sums.double() - positive * (positive + 1) / 2) / (positive * (count - positive))


def _auroc_of_ranks(
    ranks: Float[Tensor, "site example"], labels: Bool[Tensor, "labelling example"]
) -> Float[Tensor, "labelling site"]:
    return _auroc_of_sums(_rank_sums(ranks, labels), labels.double().sum(1, keepdim=True), labels.shape[1])


def _macro_auroc_of_ranks(
    ranks: Float[Tensor, "class site example"], labels: Int[Tensor, "labelling example"]
) -> Float[Tensor, "labelling site"]:
    return torch.stack([_auroc_of_ranks(one, labels == c) for c, one in enumerate(ranks)]).nanmean(0)


def macro_auroc_test(
    scores: Float[Tensor, "site example class"], y: Int[Tensor, " example"], labels: Int[Tensor, "sample example"]
) -> PermutationTest:
    """`permutation_test` of the mean over classes of one against the rest; a class without examples does not count."""
    ranks = average_ranks(scores.movedim(-1, 0))
    ranks[:, scores.isnan().any(-1).any(-1)] = torch.nan
    return permutation_test(partial(_macro_auroc_of_ranks, ranks), y, labels)


def permuted_r2(
    predicted: Float[Tensor, "site example"], values: Float[Tensor, "sample example"]
) -> Float[Tensor, "sample site"]:
    """Explained variance of every site under every permutation of the values, about the values' own mean."""
    v, f = values.double(), predicted.double()
    centre = v.mean(1, keepdim=True)
    residual = f.square().sum(1) - 2 * v @ f.T + v.square().sum(1, keepdim=True)
    return 1 - residual / (v - centre).square().sum(1, keepdim=True)


def _maxima(null: Float[Tensor, "sample cell"]) -> Float[Tensor, " sample"]:
    """The best score over cells under each permutation; NaNs do not count."""
    best = null.amax(1)
    return null.nan_to_num(nan=-torch.inf).amax(1) if best.isnan().any() else best


def tail_p(observed: float, null: Float[Tensor, " sample"], *, least: float) -> float:
    """One-sided p of a score that may be finer than the number of permutations, for corrections over many tests.

    The share of the null that reaches the score; where none does, the tail of the Pearson III distribution with the null's moments, by
    the approximation of Wilson and Hilferty (1931). A null that is skewed to the left is taken as symmetric.

    Args:
        least: The least p that any score can have, such as 1 over the number of distinct labellings.
    """
    null = null[~null.isnan()].double()
    if math.isnan(observed) or not len(null):
        return math.nan
    reached, spread = int((null >= observed - _TINY).sum()), float(null.std())
    p = (1 + reached) / (1 + len(null))
    if reached or not spread > 0:
        return p
    standard = (null - null.mean()) / spread
    return max(least, min(p, _upper_tail((observed - float(null.mean())) / spread, float(standard.pow(3).mean()))))


def _upper_tail(x: float, skew: float) -> float:
    """Chance that a Pearson III variable of mean 0, spread 1 and this skew exceeds x."""
    if skew > 1e-3:
        x = 6 / skew * ((skew / 2 * x + 1) ** (1 / 3) - 1) + skew / 6
    return float(torch.special.ndtr(torch.tensor(-x, dtype=torch.float64)))


def least_labelling_p(y: Shaped[Tensor, " example"], groups: Int[Tensor, " example"]) -> float:
    """1 over the number of distinct labellings that `group_permutations` can draw."""
    number, member = unique_inverse(groups)
    classes, label = unique_inverse(y)
    table = torch.zeros(number, classes, dtype=torch.float64)
    table.index_put_((member, label), torch.tensor(1.0, dtype=torch.float64), accumulate=True)
    pure = (table > 0).sum(1) == 1
    blocks = (table[pure] > 0).double().sum(0)[None]
    return math.exp(-float(_log_arrangements(table[~pure]).sum() + _log_arrangements(blocks).sum()))


def _log_arrangements(counts: Float[Tensor, "row class"]) -> Float[Tensor, " row"]:
    """Log of the number of orders of things of which so many are alike."""
    orders: Tensor = torch.special.gammaln(counts.sum(1) + 1) - torch.special.gammaln(counts + 1).sum(1)
    return orders


def sign_flip_p(
    values: Float[Tensor, " example"], groups: Int[Tensor, " example"], *, samples: int = 1000, seed: int = 0
) -> float:
    """One-sided p that the mean is above 0: share of random signs of the groups whose mean is as large, see `tail_p`."""
    number, member = unique_inverse(groups)
    sums = torch.zeros(number, dtype=torch.float64).index_add_(0, member, values.double())
    signs = torch.randint(2, (samples, number), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
    return tail_p(float(sums.sum()), signs @ sums, least=0.5**number)


def familywise_p(observed: Float[Tensor, "*cell"], maxima: Float[Tensor, " sample"]) -> Float[Tensor, "*cell"]:
    """One-sided family-wise p of each cell: share of labellings whose best cell reaches its score."""
    ordered = maxima.double().sort().values
    reached = len(maxima) - torch.searchsorted(ordered, observed.double().contiguous() - _TINY)
    return torch.where(observed.isnan(), torch.nan, (1 + reached).double() / (1 + len(maxima)))
