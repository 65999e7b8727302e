"""Bootstrap by group: groups are drawn with replacement, as weights, so that one draw serves all sites, steps and metrics.

Shares (AUROC, accuracy) get a t-interval on the logit scale with the bootstrap's spread (Qin & Hotilovac 2008): in simulation
the only one of six with 95 % coverage from .5 to .97 with 60 groups, where percentiles fall to 89 %.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.linalg.matmul import matmul
from ontogeny.records import IntervalEnds
from ontogeny.statistics.unique import unique_inverse

_EXPANDED_FREEDOM = 5
_MAX_RESAMPLES_WITHOUT_CLASS = 0.01

NO_SPREAD = 1e-6
"""Standard deviation of a share below which it does not vary but for rounding."""
_BLOCK = 2**24
"""Bytes of weights that are held in double precision at once."""
_DRAWN = 2**21
"""Resampled groups that are drawn at once."""
_SORTED_FROM = 1024
"""Examples from which on AUROC is resampled along the sorted scores; below, a product over all pairs is faster."""
_ROWS, _SAMPLES = 64, 250
"""Sorted examples and resamples that are worked on at once."""


@dataclass(frozen=True, eq=False)
class Interval:
    """95 % interval of each cell; NaN if nothing could be measured."""

    low: Float[Tensor, "*cell"]
    high: Float[Tensor, "*cell"]

    def __getitem__(self, cell: Any) -> "Interval":
        return Interval(self.low[cell], self.high[cell])

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the interval of one cell."""
        return float(self.low), float(self.high)


def group_weights(
    groups: Int[Tensor, " example"], *, samples: int = 1000, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Num[Tensor, "sample example"]:
    """Number of times each example occurs in each resample of the groups. Metrics with the same weights are paired.

    Args:
        dtype: uint8 takes a quarter of the memory; a group is drawn more than 255 times with probability below 1e-500.

    Raises:
        BadInput: fewer than two groups.
    """
    count, member = unique_inverse(groups)
    if count < 2:
        raise BadInput(
            f"a bootstrap by group needs at least 2 groups, got {count}: add groups, or make each example a group."
        )
    generator = torch.Generator().manual_seed(seed)
    weights = torch.empty(samples, len(groups), dtype=dtype)
    for rows in weights.split(max(1, _DRAWN // count)):  # type: ignore[no-untyped-call]
        drawn = torch.randint(count, (len(rows), count), generator=generator)
        times = torch.zeros(len(rows), count).scatter_add_(1, drawn, torch.ones(len(rows), count))
        torch.index_select(times.to(dtype), 1, member, out=rows)
    return weights


def auroc_samples(
    scores: Float[Tensor, "site example"], y: Bool[Tensor, " example"], weights: Num[Tensor, "sample example"]
) -> Float[Tensor, "sample site"]:
    """Weighted area under the ROC curve, ties counted half; NaN if a resample has one class. Unit weights give the score itself."""
    if y.all() or not y.any():
        return torch.full((len(weights), len(scores)), torch.nan)
    won = torch.empty(len(weights), len(scores))
    if len(y) >= _SORTED_FROM:
        orders = [_orders_of_ties(score, y) for score in scores]
        for at in range(0, len(weights), _SAMPLES):
            block = weights[at : at + _SAMPLES].T.float().contiguous()
            drawn = y.float() @ block
            total = drawn * (block.sum(0) - drawn)
            for site, order in enumerate(orders):
                wins = torch.stack([_sorted_wins(block, y, of_ties) for of_ties in order]).mean(0)
                won[at : at + _SAMPLES, site] = wins.float() / total
        return won
    positive, negative = weights[:, y].float(), weights[:, ~y].float()
    total = (positive.sum(1) * negative.sum(1))[:, None]
    for site, score in enumerate(scores):
        above, below = score[y][:, None], score[~y]
        wins = ((above > below).float() + (above >= below).float()) / 2
        won[:, site] = (matmul(positive, wins) * negative).sum(1)
    return won / total


def _orders_of_ties(score: Float[Tensor, " example"], y: Bool[Tensor, " example"]) -> list[Int[Tensor, " example"]]:
    """Order of the scores, with the negatives of a tie first and with its positives first; one order without such ties."""
    values, positive = score.detach().cpu().numpy(), y.cpu().numpy()
    orders = [torch.from_numpy(np.lexsort((second, values))) for second in (positive, ~positive)]
    return orders[:1] if orders[0].equal(orders[1]) else orders


def _sorted_wins(
    weights: Float[Tensor, "example sample"], y: Bool[Tensor, " example"], order: Int[Tensor, " example"]
) -> Float[Tensor, " sample"]:
    """Weight of the pairs in which the negative comes before the positive, in one pass over the sorted examples."""
    before = torch.zeros(weights.shape[1])
    wins = torch.zeros(weights.shape[1], dtype=torch.float64)
    lower = torch.ones(_ROWS, _ROWS).tril()
    for block in order.split(_ROWS):  # type: ignore[no-untyped-call]
        own, positive = weights[block], y[block, None].float()
        # Sums inside a block by one product: whole numbers, and exact in float32.
        counted = lower[: len(block), : len(block)] @ (own * (1 - positive)) + before
        wins += (own * positive * counted).sum(0)
        before = counted[-1]
    return wins


def macro_auroc_samples(
    scores: Float[Tensor, "site example class"], y: Int[Tensor, " example"], weights: Num[Tensor, "sample example"]
) -> Float[Tensor, "sample site"]:
    """Mean one-against-rest AUROC over the classes of each resample."""
    return torch.stack([auroc_samples(scores[:, :, c], y == c, weights) for c in range(scores.shape[2])]).nanmean(0)


def mean_samples(
    values: Float[Tensor, "site example"], weights: Num[Tensor, "sample example"]
) -> Float[Tensor, "sample site"]:
    """Weighted mean over examples: hits for accuracy, nats for a bound."""
    blocks = weights.split(max(1, _BLOCK // (4 * max(1, weights.shape[1]))))  # type: ignore[no-untyped-call]
    return torch.cat([b.to(values.dtype) @ values.T / b.sum(1, keepdim=True).to(values.dtype) for b in blocks])


def r2_samples(
    predicted: Float[Tensor, "site example"], y: Float[Tensor, " example"], weights: Num[Tensor, "sample example"]
) -> Float[Tensor, "sample site"]:
    """Weighted explained variance, about the mean of each resample."""
    v, w = y.double() - y.double().mean(), weights.double()
    total = w @ v.square() - (w @ v).square() / w.sum(1)
    residual = w @ (y.double() - predicted.double()).square().T
    return (1 - residual / total[:, None]).to(predicted.dtype)


def share_interval(
    point: Float[Tensor, "*cell"], samples: Float[Tensor, "sample *cell"], *, groups: int, level: float = 0.95
) -> Interval:
    """Interval of a score between 0 and 1: t on the logit scale; exact, see `uniform_ends`, if no group differs, as at 0 and 1.

    Absent where more than 1 % of the resamples lack a class (one to four examples of it): the others do not vary as new data would.
    """
    edge = (point <= 0) | (point >= 1)
    inner = point.double().where(~edge, 0.5)
    spread = _spread(samples)
    half = student_t_quantile(float(groups - 1), level) * spread / (inner * (1 - inner))
    low, high = torch.sigmoid(torch.logit(inner) - half), torch.sigmoid(torch.logit(inner) + half)
    uniform, ends = edge | (spread < NO_SPREAD), uniform_ends(point, groups, level=level)
    low, high = low.where(~uniform, ends.low.double()), high.where(~uniform, ends.high.double())
    rare = samples.isnan().double().mean(0) > _MAX_RESAMPLES_WITHOUT_CLASS
    return _known(point.where(~rare, torch.nan), low, high)


def uniform_ends(point: Float[Tensor, "*cell"], groups: int | Float[Tensor, "*cell"], *, level: float) -> Interval:
    """Exact interval of a score between 0 and 1 that is the same in every group, so that resamples do not vary.

    With a probability of half the rest of the level, none of the groups shows a value that a share of 1 − reach of all groups has; these
    may lie anywhere from 0 to 1. At a score of 0 or 1 it is the binomial interval of Clopper & Pearson 1934.
    """
    score = point.double().clamp(0, 1)
    reach = ((1 - level) / 2) ** (1 / torch.as_tensor(groups, dtype=torch.float64, device=point.device))
    return Interval(score * reach, 1 - (1 - score) * reach)


def percentile_interval(
    point: Float[Tensor, "*cell"], samples: Float[Tensor, "sample *cell"], *, groups: int, level: float = 0.95
) -> Interval:
    """Interval of an unbounded score: percentiles, widened about the point for few groups."""
    tail = (1 - level) / 2
    ends = samples.double().nanquantile(
        torch.tensor([tail, 1 - tail], dtype=torch.float64, device=samples.device), dim=0
    )
    stretch = student_t_quantile(float(groups - 1), level) / _z(level) * (groups / (groups - 1)) ** 0.5
    return _known(point, point + stretch * (ends[0] - point), point + stretch * (ends[1] - point))


def _known(point: Tensor, low: Tensor, high: Tensor) -> Interval:
    return Interval(
        low.where(~point.isnan(), torch.nan).to(point.dtype), high.where(~point.isnan(), torch.nan).to(point.dtype)
    )


def _spread(samples: Float[Tensor, "sample *cell"]) -> Float[Tensor, "*cell"]:
    values = samples.double()
    return (values - values.nanmean(0)).square().nanmean(0).sqrt()


def _z(level: float) -> float:
    return float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))


def student_t_quantile(freedom: int | float, level: float) -> float:
    """Student's t: exact below 5 degrees of freedom, above that by its expansion in 1/freedom, to four digits."""
    if freedom < _EXPANDED_FREEDOM:
        from scipy.special import stdtrit

        return float(stdtrit(freedom, (1 + level) / 2))
    z = _z(level)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def student_t_quantiles(freedom: Float[Tensor, "*cell"], level: float) -> Float[Tensor, "*cell"]:
    """Student's t of each of some degrees of freedom, which need not be whole."""
    from scipy.special import stdtrit

    return torch.from_numpy(stdtrit(freedom.double().cpu().numpy(), (1 + level) / 2)).to(freedom)


def interval_ends(
    point: float | Float[Tensor, ""],
    samples: Float[Tensor, " sample"],
    *,
    groups: int,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> IntervalEnds:
    """95 % bootstrap interval of a number from its resamples; `within` is the range of the metric."""
    point = point if isinstance(point, Tensor) else torch.tensor(point, dtype=torch.float64)
    interval = percentile_interval(point, samples, groups=groups)
    return max(float(interval.low), within[0]), min(float(interval.high), within[1])


@dataclass(frozen=True, eq=False)
class BootstrapEstimate:
    """A mean or an error, and its value on each resample."""

    value: float
    samples: Float[Tensor, " sample"]
    n: int
    groups: int

    def __sub__(self, other: "BootstrapEstimate") -> "BootstrapEstimate":
        """The paired difference of two estimates."""
        return BootstrapEstimate(self.value - other.value, self.samples - other.samples, self.n, self.groups)

    @property
    def ends(self) -> IntervalEnds:
        """95 % interval. Resampling noise increases an error, so the resamples are first centred on the value."""
        centred = self.samples - self.samples.nanmedian() + self.value
        return interval_ends(self.value, centred, groups=self.groups)


def bootstrap_mean(
    values: Float[Tensor, " example"], weights: Float[Tensor, "sample example"], groups: int
) -> BootstrapEstimate:
    """The mean of the values, with resamples."""
    w = weights.double()
    return BootstrapEstimate(float(values.mean()), w @ values.double() / w.sum(1), len(values), groups)
