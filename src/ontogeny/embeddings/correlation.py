"""Correlations, overall or within strata, with intervals over tokens from leaving out each (the jackknife; for pairs Arvesen 1969)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.statistics.bootstrap import student_t_quantile


@dataclass(frozen=True, eq=False)
class Correlation:
    """A correlation, and what each token contributes to it."""

    value: float
    influence: Float[Tensor, " token"]
    """Derivative by the weight of each token; sums to zero."""

    @classmethod
    def of(cls, sums: Float[Tensor, " 3"], without: Float[Tensor, "token 3"]) -> "Correlation":
        """From the sums of squares and products of deviations, xx, xy and yy, of everything and without each token."""
        left_out, count = _ratio(without), len(without)
        return cls(float(_ratio(sums[None])[0]), (left_out.mean() - left_out) * (count - 1) / count)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval over tokens, on Fisher's z."""
        count = len(self.influence)
        if count < 3 or not abs(self.value) < 1:
            return (self.value, self.value) if abs(self.value) == 1 else (math.nan, math.nan)
        error = math.sqrt(count / (count - 1) * float(self.influence.square().sum())) / (1 - self.value**2)
        half, middle = student_t_quantile(float(count - 1), 0.95) * error, math.atanh(self.value)
        return math.tanh(middle - half), math.tanh(middle + half)


def deviation_products(sums: Float[Tensor, "*cell 6"]) -> Float[Tensor, "*cell 3"]:
    """xx, xy and yy about the means, from sums of 1, x, y, x², xy and y²."""
    count, x, y, xx, xy, yy = sums.unbind(-1)
    count = count.clamp(min=1)
    return torch.stack([xx - x * x / count, xy - x * y / count, yy - y * y / count], -1)


def _ratio(products: Float[Tensor, "case 3"]) -> Float[Tensor, " case"]:
    xx, xy, yy = products.unbind(-1)
    tiny = 1e-12
    known = (xx > tiny) & (yy > tiny)
    return torch.where(known, (xy / (xx * yy).clamp(min=tiny**2).sqrt()).clamp(-1, 1), torch.nan)


def correlate(
    a: Float[Tensor, " token"], b: Float[Tensor, " token"], strata: Int[Tensor, " token"] | None = None
) -> Correlation:
    """Pearson's correlation over tokens; within strata, if they are given, so that nothing counts that their means explain."""
    x, y = (values.double() - values.double().mean() for values in (a, b))
    each = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], 1)
    strata = torch.zeros(len(x), dtype=torch.long) if strata is None else strata
    by_stratum = each.new_zeros(int(strata.max()) + 1, 6).index_add_(0, strata, each)
    before = deviation_products(by_stratum)
    change = before[strata] - deviation_products(by_stratum[strata] - each)
    return Correlation.of(before.sum(0), before.sum(0) - change)


def mean_interval(values: Float[Tensor, " token"]) -> tuple[float, float]:
    """95 % t-interval of a mean over tokens."""
    count = len(values)
    if count < 2:
        return math.nan, math.nan
    half = student_t_quantile(float(count - 1), 0.95) * float(values.double().std()) / math.sqrt(count)
    middle = float(values.double().mean())
    return middle - half, middle + half
