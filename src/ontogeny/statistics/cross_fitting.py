"""Scores of cross-fitted probes and their variance over groups, split and fits.

Each example is scored by the probe of its fold, which was fitted on the other folds. AUROC compares pairs within a fold: a probe is
independent of its own fold, so this is unbiased, where pooled scores of different fits are biased below chance. The variance over the
test groups, given the fits, comes from the influence of each group (DeLong's components by cluster, Obuchowski 1997); that of an AUROC
of two classes is freed of the bias by which small folds count the interactions of groups twice (`auroc_variance`). At chance the true
variance is up to twice that: the score is then a sum over pairs of examples, each of which counts twice, once with either as training
data. Far from chance the fits add less. `make calibration` holds the coverage.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from ontogeny.linalg.matmul import matmul
from ontogeny.statistics.bootstrap import NO_SPREAD, Interval, student_t_quantiles, uniform_ends
from ontogeny.statistics.permutation import average_ranks
from ontogeny.statistics.unique import unique_inverse, unique_values

_SHARE_AT_CHANCE = 0.6
"""Of accuracies and other means: the signs of the scores hold 2/π of the doubled variance."""
_AUROC_SHARE_AT_CHANCE = 0.85
"""Of an AUROC, whose ranks hold 3/π of it; pairs inside a group add nothing, as no fit has seen one of them without the other."""
_AUROC_DECAYS, _AUROC_DECAY = {"mass_mean": 5.0}, 0.45
"""How fast the share of the fits falls with the score, by method, from simulation: class means settle sooner than fitted weights."""
_NEARER = 1.8
"""The share is that at a score so many standard errors nearer to chance: the end of the interval where the fits matter most."""
_LEAST_VARIANCE = 0.4
"""Of that of independent examples: with few wrong pairs, their spread over the groups is unknown."""
_LEAST_DISJOINT = 1 / 3
"""Bound on how much the covariance of the folds may take from their spread, of two groups a fold."""
_MANY_GROUPS = 32
"""Groups of a fold above which interactions are left out: they are less than a twentieth of the variance."""
_COMPARED = 2**12
"""Pairs of a fold that are compared one by one; more are counted by sorting."""
_BLOCK = 2**24
"""Weights that are held in double precision at once."""
_ORDERED = 2**20
"""Scores of examples that are ordered at once."""
_LEAST_DECAY, _MOST_DECAY = 1.0, 1.5
"""How fast the share of the fits in the variance falls with the score, from simulation: hardly with many more dimensions than examples."""


@dataclass(frozen=True, eq=False)
class CrossFitScore:
    """A score at each site and the derivative of it by each example's weight."""

    value: Float[Tensor, " site"]
    influence: Float[Tensor, "site example"]


def cross_fit_auroc(
    scores: Float[Tensor, "site example"],
    y: Bool[Tensor, " example"],
    folds: Int[Tensor, " example"],
    groups: Int[Tensor, " example"],
) -> CrossFitScore:
    """AUROC of the pairs within folds, over all folds; NaN if no fold holds both classes or a score is NaN."""
    size = max(1, _ORDERED // len(y))
    if len(scores) > size:
        blocks = [cross_fit_auroc(block, y, folds, groups) for block in torch.split(scores, size)]
        return CrossFitScore(
            torch.cat([block.value for block in blocks]), torch.cat([block.influence for block in blocks])
        )
    wins, pairs, inside, inside_pairs = _wins(scores, y, folds, groups)
    total = pairs[y].sum()
    value = wins[:, y].sum(1) / total
    value = value.where(~scores.isnan().any(1), torch.nan)
    # A pair inside a group comes and goes with that group once, not once for either example.
    influence = (wins - inside / 2 - value[:, None] * (pairs - inside_pairs / 2)) / total
    return CrossFitScore(value.to(scores.dtype), influence - influence.mean(1, keepdim=True))


def cross_fit_macro_auroc(
    scores: Float[Tensor, "site example k"],
    y: Int[Tensor, " example"],
    folds: Int[Tensor, " example"],
    groups: Int[Tensor, " example"],
) -> CrossFitScore:
    """Mean over the classes of that class against the rest."""
    each = [cross_fit_auroc(scores[..., c], y == c, folds, groups) for c in range(scores.shape[-1])]
    return CrossFitScore(
        torch.stack([one.value for one in each]).mean(0), torch.stack([one.influence for one in each]).mean(0)
    )


def cross_fit_mean(values: Float[Tensor, "site example"]) -> CrossFitScore:
    """Mean over examples, such as the share of right answers."""
    mean = values.mean(1)
    return CrossFitScore(mean, (values - mean[:, None]).double() / values.shape[1])


def cross_fit_r2(predicted: Float[Tensor, "site example"], y: Float[Tensor, " example"]) -> CrossFitScore:
    """Explained variance of the out-of-fold predictions."""
    error = (y.double() - predicted.double()).square()
    spread = (y.double() - y.double().mean()).square()
    rest = error.sum(1) / spread.sum()
    return CrossFitScore((1 - rest).to(predicted.dtype), (rest[:, None] * spread - error) / spread.sum())


def fold_aurocs(
    scores: Float[Tensor, "site example"], y: Bool[Tensor, " example"], folds: Int[Tensor, " example"]
) -> Float[Tensor, "fold site"]:
    """AUROC of each fold; NaN where a fold lacks a class."""
    wins, pairs, _, _ = _wins(scores, y, folds, torch.arange(len(y), device=folds.device))
    inside = (folds == torch.arange(int(folds.max()) + 1, device=folds.device)[:, None]) & y
    total = torch.stack([pairs[fold].sum() for fold in inside])
    won = torch.stack([wins[:, fold].sum(1) for fold in inside])
    return (won / total[:, None]).where(~scores.isnan().any(1), torch.nan).to(scores.dtype)


def _wins(scores: Tensor, y: Tensor, folds: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How many examples of the other class in its fold each example is ordered rightly against (ties ½), and of how many.

    Then the same inside its group. O(n log n) by sorting.
    """
    wins, inside = torch.zeros(2, *scores.shape, dtype=torch.float64, device=scores.device)
    pairs, inside_pairs = torch.zeros(2, len(y), dtype=torch.float64, device=scores.device)
    for fold in range(int(folds.max()) + 1):
        positive, negative = ((folds == fold) & y).nonzero()[:, 0], ((folds == fold) & ~y).nonzero()[:, 0]
        if not len(positive) or not len(negative):
            continue
        pairs[positive], pairs[negative] = float(len(negative)), float(len(positive))
        wins[:, positive], wins[:, negative] = _ordered_pairs(scores[:, positive], scores[:, negative])
        positive = positive[torch.isin(groups[positive], groups[negative])]
        negative = negative[torch.isin(groups[negative], groups[positive])]
        if not len(positive):
            continue
        examples = torch.cat([positive, negative])
        count, member = unique_inverse(groups[examples])
        left, right = member[: len(positive)], member[len(positive) :]
        left_count, right_count = left.bincount(minlength=count), right.bincount(minlength=count)
        inside_pairs[positive], inside_pairs[negative] = right_count[left].double(), left_count[right].double()
        # Ranks are shifted group by group: every pair across groups is then won by the later group, and is taken off.
        ranks = average_ranks(scores[:, examples]) + 2 * len(examples) * member
        won, lost = _ordered_pairs(ranks[:, : len(positive)], ranks[:, len(positive) :])
        inside[:, positive] = won - (right_count.cumsum(0) - right_count)[left]
        inside[:, negative] = lost - (len(positive) - left_count.cumsum(0))[right]
    return wins, pairs, inside, inside_pairs


def _ordered_pairs(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """For each positive the negatives below it, for each negative the positives above it; ties count ½."""
    positive, negative = positive.contiguous(), negative.contiguous()
    ordered = negative.sort(1).values
    below = torch.searchsorted(ordered, positive) + torch.searchsorted(ordered, positive, right=True)
    ordered = positive.sort(1).values
    not_above = torch.searchsorted(ordered, negative) + torch.searchsorted(ordered, negative, right=True)
    return below.double() / 2, positive.shape[1] - not_above.double() / 2


@dataclass(frozen=True, eq=False)
class GroupVariance:
    value: Float[Tensor, " site"]
    freedom: Float[Tensor, " site"]
    """Degrees of freedom, by Satterthwaite 1946."""


def group_variance(
    influence: Float[Tensor, "site example"], groups: Int[Tensor, " example"], y: Tensor | None = None
) -> GroupVariance:
    """Variance of a score over groups, from the influence of its examples.

    Args:
        y: Labels of a score that compares classes, such as AUROC: groups of one label then count for their class only.
    """
    variance, freedom, kinds = _variance_by_kind(influence, groups, y)
    # With a kind of groups for each class, the level of the score is estimated beside their means.
    return GroupVariance(variance, (freedom - 1).clamp(min=1) if kinds > 1 else freedom)


def _variance_by_kind(
    influence: Float[Tensor, "site example"], groups: Int[Tensor, " example"], y: Tensor | None
) -> tuple[Float[Tensor, " site"], Float[Tensor, " site"], int]:
    """Variance over groups, its degrees of freedom and the number of kinds of groups."""
    by_group, member = _group_sums(influence, groups)
    count = by_group.shape[1]
    variance, smallness = torch.zeros(2, len(influence), dtype=influence.dtype, device=influence.device)
    strata = _strata(member, count, y)
    for inside in strata:
        size = int(inside.sum())
        # A single group of a kind says nothing about its spread.
        factor, freedom = (size / (size - 1), size - 1) if size > 1 else (count / (count - 1), 1)
        part = factor * by_group[:, inside].square().sum(1)
        variance, smallness = variance + part, smallness + part.square() / freedom
    return variance, torch.where(smallness > 0, variance.square() / smallness, count - 1.0), len(strata)


def auroc_variance(
    scores: Float[Tensor, "site example"],
    score: CrossFitScore,
    y: Bool[Tensor, " example"],
    folds: Int[Tensor, " example"],
    groups: Int[Tensor, " example"],
    *,
    method: str = "",
    pairs: "GroupPairs | None" = None,
) -> GroupVariance:
    """Variance of an AUROC of two classes over test groups, folds and fits.

    That of the test groups is the unbiased one of a U-statistic of groups (Bamber 1975 for groups of one label): the sum of the squared
    influences counts each pair of groups twice, the variance once. The covariance of the folds, which share the pairs of their examples,
    adds to the variance and is missing from the spread between folds.

    Args:
        score: From `cross_fit_auroc`.
        method: The probe, see `_AUROC_DECAYS`.
        pairs: Those of the labels, folds and groups, if known.
    """
    area, pairs = score.value.double(), pairs or GroupPairs.of(y, folds, groups)
    squares = _group_sums(score.influence, groups)[0].square().sum(1)
    # Interactions are at most half of it, as the part of the first order is not negative.
    first = torch.maximum(squares - _interactions(scores, area, pairs), squares / 2)
    spread, least = area * (1 - area), _LEAST_VARIANCE * area * (1 - area) / len(y)

    def total(share: Float[Tensor, " site"]) -> Float[Tensor, " site"]:
        rest = (pairs.disjoint - share * (1 - pairs.disjoint)).clamp(min=_LEAST_DISJOINT * pairs.disjoint)
        return torch.maximum(first * (1 + share) / rest, least)

    most = torch.full_like(area, _AUROC_SHARE_AT_CHANCE * (1 - pairs.inside))
    distance = torch.logit(area).abs() - _NEARER * total(most).sqrt() / spread
    strength = (2 * torch.sigmoid(distance.clamp(min=0)) - 1).square()
    share = most * (1 - strength) ** _AUROC_DECAYS.get(method, _AUROC_DECAY)
    edge = spread <= 0
    _, freedom, kinds = _variance_by_kind(score.influence, groups, y)
    # The exact interval of a score of 0 or 1 counts the level of the score as well.
    freedom = torch.where(edge & (kinds > 1), (freedom - 1).clamp(min=1), freedom)
    return GroupVariance(total(share).where(~edge, 0.0), freedom)


def resample_share(
    variance: GroupVariance, score: CrossFitScore, groups: Int[Tensor, " example"]
) -> Float[Tensor, " site"]:
    """`fits` with which `cross_fit_samples` spreads by a variance."""
    squares = _group_sums(score.influence, groups)[0].square().sum(1)
    return torch.where(squares > 0, variance.value / squares - 1, 0.0)


@dataclass(frozen=True, eq=False)
class GroupPairs:
    """Pairs of a positive and a negative example in one fold, by their groups."""

    members: list[tuple[Tensor, Tensor, Tensor, Tensor]]
    """Of each fold with both classes: positive and negative examples, and their groups, counted inside the fold."""
    count: int
    disjoint: float
    """Share of the pairs of pairs without a common group."""
    inside: float
    """Share of the pairs inside a group."""

    @classmethod
    def of(
        cls, y: Bool[Tensor, " example"], folds: Int[Tensor, " example"], groups: Int[Tensor, " example"]
    ) -> "GroupPairs":
        members, total, inside, shared = [], 0.0, 0.0, 0.0
        for fold in range(int(folds.max()) + 1):
            positive, negative = ((folds == fold) & y).nonzero()[:, 0], ((folds == fold) & ~y).nonzero()[:, 0]
            if not len(positive) or not len(negative):
                continue
            number, member = unique_inverse(groups[torch.cat([positive, negative])])
            left, right = member[: len(positive)], member[len(positive) :]
            members.append((positive, negative, left, right))
            p, n = (side.bincount(minlength=number).double() for side in (left, right))
            own = p * n
            of_group = p * n.sum() + n * p.sum() - own
            total, inside = total + float(p.sum() * n.sum()), inside + float(own.sum())
            shared += float(of_group.square().sum())
            if number <= _MANY_GROUPS:
                across = p.square().sum() * n.square().sum() + own.sum().square() - 2 * own.square().sum()
                shared -= float(across)
        return cls(members, max(int(total), 1), 1 - shared / max(total, 1.0) ** 2, inside / max(total, 1.0))


def _interactions(
    scores: Float[Tensor, "site example"], area: Float[Tensor, " site"], pairs: GroupPairs
) -> Float[Tensor, " site"]:
    """Sum over two groups of the square of the pairs between them, each less the AUROC; of folds with few groups."""
    result = torch.zeros_like(area)
    for positive, negative, left, right in pairs.members:
        if int(torch.maximum(left.max(), right.max())) >= _MANY_GROUPS:
            continue
        size = max(1, _BLOCK // max(_COMPARED, len(positive) * _MANY_GROUPS))
        blocks = [
            _squares_between(some[:, positive], some[:, negative], level, left, right)
            for some, level in zip(torch.split(scores, size), torch.split(area, size), strict=True)
        ]
        result += torch.cat(blocks)
    return result / pairs.count**2


def _squares_between(positive: Tensor, negative: Tensor, area: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Sum of the squares of one fold, from the scores of its examples and their groups."""
    number = 1 + int(torch.maximum(left.max(), right.max()))
    few = left.numel() * right.numel() <= _COMPARED
    above, below = positive[:, :, None], negative[:, None]
    if few and number == left.numel() + right.numel():  # groups of one example: a pair is 0, ½ or 1
        won, tied = (above > below).sum((1, 2)).double(), (above == below).sum((1, 2)).double()
        return won + tied / 4 - 2 * area * (won + tied / 2) + area.square() * left.numel() * right.numel()
    kind = torch.arange(number, device=left.device)
    onto, of = (left == kind[:, None]).float(), (right[:, None] == kind).float()
    if few:
        between = (onto @ ((above > below).float() + (above >= below)) @ of).double() / 2
    else:
        wins = [_ordered_pairs(positive, negative[:, right == group])[0] for group in kind]
        between = onto.double() @ torch.stack(wins, 2)
    between -= area[:, None, None] * (onto.sum(1)[:, None] * of.sum(0))
    return (between + between.mT).triu(1).square().sum((1, 2))


def _group_sums(
    influence: Float[Tensor, "site example"], groups: Int[Tensor, " example"]
) -> tuple[Float[Tensor, "site group"], Int[Tensor, " example"]]:
    """The influence of each group, and the group of each example."""
    count, member = unique_inverse(groups.cpu())
    member = member.to(groups.device)
    return influence.new_zeros(len(influence), count).index_add_(1, member, influence), member


def _strata(member: Tensor, count: int, y: Tensor | None) -> list[Bool[Tensor, " group"]]:
    """Groups of mixed labels, and those of each single label."""
    if y is None or y.is_floating_point():
        return [torch.ones(count, dtype=torch.bool, device=member.device)]
    low = torch.full((count,), int(y.long().max()) + 1, device=member.device).scatter_reduce_(
        0, member, y.long(), "amin"
    )
    high = torch.full((count,), -1, device=member.device).scatter_reduce_(0, member, y.long(), "amax")
    kind = torch.where(low == high, low, -1)
    return [kind == value for value in unique_values(kind).tolist()]


def fit_variance_share(
    value: Float[Tensor, "*cell"], *, share: bool, examples: int, width: int
) -> Float[Tensor, "*cell"]:
    """Variance of a mean by the training groups, as a share of that by the test groups: largest at chance, 0 for a perfect score.

    For an AUROC of two classes, `auroc_variance` knows more.

    Args:
        share: Whether the score is an AUROC, with chance at ½; else an explained variance.
        examples: Number of examples, all folds together.
        width: Dimensions of the activations.
    """
    strength = (2 * value.double() - 1).square() if share else value.double().clamp(0, 1)
    decay = min(max(examples / width, _LEAST_DECAY), _MOST_DECAY)
    return _SHARE_AT_CHANCE * (1 - strength).clamp(0, 1) ** decay


def cross_fit_interval(
    value: Float[Tensor, " site"],
    test: GroupVariance,
    fits: Float[Tensor, " site"],
    *,
    share: bool,
    level: float = 0.95,
) -> Interval:
    """t-interval over test groups and fits; of shares on the logit scale, exact if no group differs, as at 0 and 1.

    Args:
        fits: From `fit_variance_share`.
    """
    inner = value.double()
    half = student_t_quantiles(test.freedom.nan_to_num(1.0).clamp(min=1), level) * (test.value * (1 + fits)).sqrt()
    if not share:
        return Interval((inner - half).to(value.dtype), (inner + half).to(value.dtype))
    edge = (inner <= 0) | (inner >= 1)
    middle = inner.where(~edge, 0.5)
    half = half / (middle * (1 - middle))
    low, high = torch.sigmoid(torch.logit(middle) - half), torch.sigmoid(torch.logit(middle) + half)
    uniform = edge | (test.value < NO_SPREAD**2)
    ends = uniform_ends(inner, test.freedom + 1, level=level)
    low, high = low.where(~uniform, ends.low), high.where(~uniform, ends.high)
    known = ~value.isnan()
    return Interval(low.where(known, torch.nan).to(value.dtype), high.where(known, torch.nan).to(value.dtype))


def cross_fit_samples(
    score: CrossFitScore, weights: Num[Tensor, "sample example"], fits: Float[Tensor, " site"], *, share: bool
) -> Float[Tensor, "sample site"]:
    """The score on resamples of the groups, to first order in their weights; paired over sites and checkpoints.

    Shares move on the logit scale, so that they stay between 0 and 1.
    """
    blocks = weights.split(max(1, _BLOCK // weights.shape[1]))  # type: ignore[no-untyped-call]
    more = (block.to(torch.float64, copy=True).sub_(1) for block in blocks)
    moved = torch.cat([matmul(block, score.influence.T) for block in more]) * (1 + fits).sqrt()
    value = score.value.double()
    if not share:
        return (value + moved).to(score.value.dtype)
    edge = (value <= 0) | (value >= 1)
    inner = value.where(~edge, 0.5)
    return torch.sigmoid(torch.logit(inner) + moved / (inner * (1 - inner))).where(~edge, value).to(score.value.dtype)
