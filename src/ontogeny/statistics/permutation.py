"""Permutation nulls that respect groups, and the max-statistic over all cells of a map (Westfall & Young 1993; Nichols & Holmes 2002).

The scores of the held-out examples stay fixed and their labels are permuted, so one set of permutations serves every site and
checkpoint: use the same one throughout, and combine checkpoints by `torch.maximum` of their `null_maxima`.
"""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.statistics.unique import unique_inverse, unique_values

_TINY = 1e-9
"""Tolerance for equal scores: a null score this close counts as reaching the observed one."""


def group_permutations(
    y: Shaped[Tensor, " example"], groups: Int[Tensor, " example"], *, samples: int = 1000, seed: int = 0
) -> Int[Tensor, "sample example"]:
    """Index of the example whose label each example gets: `y[result]` are the permuted labels.

    Labels are shuffled inside groups of mixed labels; groups of one label swap labels as blocks, which keeps them uniform.

    Raises:
        BadInput: all labels are equal.
    """
    generator = torch.Generator().manual_seed(seed)
    number, member = unique_inverse(groups)
    first = torch.full((number,), len(y)).scatter_reduce_(0, member, torch.arange(len(y)), "amin")
    differs = torch.zeros(number, dtype=torch.bool).index_put_((member[y != y[first[member]]],), torch.tensor(True))
    pure = (~differs).nonzero()[:, 0]
    if not differs.any() and len(unique_values(y[first[pure]])) < 2:
        raise BadInput(
            f"a permutation test needs two classes, got equal labels of {len(y)} examples in {number} groups: add a class."
        )
    source = torch.arange(number).repeat(samples, 1)
    source[:, pure] = pure[torch.rand(samples, len(pure), generator=generator).argsort(1)]
    blocks = first[source][:, member]
    # Sorting by group plus noise shuffles the examples inside each group and keeps the groups in place.
    slots = (member.double() * 2).argsort(stable=True)
    shuffled = (member.double() * 2 + torch.rand(samples, len(y), generator=generator, dtype=torch.float64)).argsort(1)
    within = torch.empty_like(shuffled).scatter_(1, slots.expand(samples, -1), shuffled)
    return torch.where(differs[member], within, blocks)


def average_ranks(scores: Float[Tensor, "*batch example"]) -> Float[Tensor, "*batch example"]:
    """Ranks from 1 along the last axis, ties at their mean; float64."""
    ordered, order = scores.sort(-1)
    place = torch.arange(scores.shape[-1], dtype=torch.float64, device=scores.device)
    differs = ordered[..., 1:] != ordered[..., :-1]
    if differs.all():
        return torch.empty_like(ordered, dtype=torch.float64).scatter_(-1, order, (place + 1).expand(ordered.shape))
    # First and last place of each run of equal scores, without a search for every entry.
    first = torch.where(torch.nn.functional.pad(differs, (1, 0), value=True), place, 0).cummax(-1).values
    ends = torch.where(torch.nn.functional.pad(differs, (0, 1), value=True), place, torch.inf)
    last = ends.flip(-1).cummin(-1).values.flip(-1)
    return torch.empty_like(first).scatter_(-1, order, (first + last) / 2 + 1)


def permuted_auroc(
    scores: Float[Tensor, "site example"], labels: Bool[Tensor, "sample example"]
) -> Float[Tensor, "sample site"]:
    """Area under the ROC curve of every site under every labelling: one matrix product on ranks; NaN with one class."""
    positive = labels.double()
    p = positive.sum(1, keepdim=True)
    n = labels.shape[1] - p
    return (positive @ average_ranks(scores).T - p * (p + 1) / 2) / (p * n)


def permuted_macro_auroc(
    scores: Float[Tensor, "site example class"], labels: Int[Tensor, "sample example"]
) -> Float[Tensor, "sample site"]:
    """Mean over classes of one against the rest; a class without examples does not count."""
    per_class = [permuted_auroc(scores[:, :, c], labels == c) for c in range(scores.shape[2])]
    return torch.stack(per_class).nanmean(0)


def permuted_r2(
    predicted: Float[Tensor, "site example"], values: Float[Tensor, "sample example"]
) -> Float[Tensor, "sample site"]:
    """Explained variance of every site under every permutation of the values, about the values' own mean."""
    v, f = values.double(), predicted.double()
    centre = v.mean(1, keepdim=True)
    residual = f.square().sum(1) - 2 * v @ f.T + v.square().sum(1, keepdim=True)
    return 1 - residual / (v - centre).square().sum(1, keepdim=True)


def null_maxima(null: Float[Tensor, "sample cell"]) -> Float[Tensor, " sample"]:
    """The best score over cells under each permutation; NaNs do not count."""
    return null.nan_to_num(nan=-torch.inf).amax(1)


def p_values(observed: Float[Tensor, " cell"], null: Float[Tensor, "sample cell"]) -> Float[Tensor, " cell"]:
    """One-sided p of each cell: share of labellings, the observed one included, that reach its score; NaN stays NaN."""
    reached = (null >= observed - _TINY).sum(0)
    return torch.where(observed.isnan(), torch.nan, (1 + reached).double() / (1 + len(null)))


def familywise_p(observed: Float[Tensor, "*cell"], maxima: Float[Tensor, " sample"]) -> Float[Tensor, "*cell"]:
    """One-sided family-wise p of each cell: share of labellings whose best cell reaches its score."""
    ordered = maxima.double().sort().values
    reached = len(maxima) - torch.searchsorted(ordered, observed.double().contiguous() - _TINY)
    return torch.where(observed.isnan(), torch.nan, (1 + reached).double() / (1 + len(maxima)))
