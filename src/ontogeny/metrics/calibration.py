"""Calibration: confidence against accuracy by reliability bins, expected calibration error and Brier score.

ECE (arXiv:1706.04599) uses bins of equal width, its adaptive form bins of equal counts (arXiv:1904.01685). With finitely many answers
both are above 0 even for a perfectly calibrated model: `perfect_calibration_error` gives this baseline.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.metrics import Metric
from ontogeny.statistics.bootstrap import share_interval
from ontogeny.statistics.unique import unique_inverse, unique_values

Binning = Literal["width", "count"]


@dataclass(frozen=True)
class CalibrationBin:
    """Answers of similar confidence."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean confidence of its answers."""
    accuracy: float
    accuracy_low: float
    """95 % interval of the accuracy (binomial, on the logit scale)."""
    accuracy_high: float


def expected_calibration_error(
    confidence: Float[Tensor, " answer"],
    right: Bool[Tensor, " answer"],
    *,
    bins: int = 10,
    by: Binning = "width",
    weights: Float[Tensor, "sample answer"] | None = None,
) -> Float[Tensor, " sample"]:
    """Mean of |accuracy − confidence| over the bins, weighted by their number of answers, in [0, 1].

    Args:
        by: Bins of equal `width`, or of equal `count` (adaptive).
        weights: Weights of the answers in each sample, such as bootstrap counts; one number per row.

    Raises:
        BadInput: there are no answers, or a confidence is outside [0, 1].
    """
    inside = _bin_index(confidence, bins, by)
    w = torch.ones(1, len(right), dtype=torch.float64) if weights is None else weights.double()
    gaps = right.double() - confidence.double()
    sums = torch.zeros(len(w), bins, dtype=torch.float64).index_add(1, inside, w * gaps)
    error: Tensor = sums.abs().sum(1) / w.sum(1)
    return error


def perfect_calibration_error(
    confidence: Float[Tensor, " answer"], *, bins: int = 10, by: Binning = "width", samples: int = 1000, seed: int = 0
) -> Float[Tensor, " sample"]:
    """ECE of a perfectly calibrated model with these confidences: the baseline due to sampling noise."""
    generator = torch.Generator().manual_seed(seed)
    inside = _bin_index(confidence, bins, by)
    sure = confidence.double()
    right = torch.rand(samples, len(sure), generator=generator, dtype=torch.float64) < sure
    sums = torch.zeros(samples, bins, dtype=torch.float64).index_add(1, inside, right.double() - sure)
    return sums.abs().sum(1) / len(sure)


def reliability_bins(
    confidence: Float[Tensor, " answer"], right: Bool[Tensor, " answer"], *, bins: int = 10, by: Binning = "width"
) -> list[CalibrationBin]:
    """Non-empty bins by increasing confidence."""
    inside = _bin_index(confidence, bins, by)
    reliability = []
    for b in unique_values(inside).tolist():
        members = inside == b
        n, sure, share = int(members.sum()), confidence[members].double(), right[members].double().mean()
        spread = (share * (1 - share) / n).sqrt()
        # Two samples at ± one standard deviation of the binomial.
        interval = share_interval(share, torch.stack([share - spread, share + spread]), groups=max(2, n))
        low, high = (b / bins, (b + 1) / bins) if by == "width" else (float(sure.min()), float(sure.max()))
        accuracy = float(share), float(interval.low), float(interval.high)
        reliability.append(CalibrationBin(low, high, n, float(sure.mean()), *accuracy))
    return reliability


def brier_score(shares: Float[Tensor, "answer option"], right: Int[Tensor, " answer"]) -> Float[Tensor, " answer"]:
    """Σ over the options of (p − 1[right])² per answer: 0 if certain and right, 2 if certain and wrong."""
    wanted = torch.nn.functional.one_hot(right, shares.shape[1])
    return (shares.double() - wanted).square().sum(1)


def _bin_index(confidence: Float[Tensor, " answer"], bins: int, by: Binning) -> Int[Tensor, " answer"]:
    if not len(confidence) or not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise BadInput(
            f"`confidence` must hold at least one number, all from 0 to 1, got {confidence[:4].tolist()}: give the probability "
            "of each answer."
        )
    if by == "count":
        # Answers of equal confidence share the bin of their middle.
        values, same = unique_inverse(confidence.double())
        counts = same.bincount(minlength=values)
        middle = counts.cumsum(0) - (counts + 1) / 2
        in_middle: Tensor = (middle[same] * bins / len(confidence)).long()
        return in_middle.clamp(max=bins - 1)
    return (confidence.double() * bins).long().clamp(max=bins - 1)


_NAME, _INVARIANCES = "expected_calibration_error", frozenset({"permutation"})
_REFERENCE = "sklearn.calibration.calibration_curve"
metrics = (Metric(_NAME, expected_calibration_error, "confidences, correct", 0.0, 1.0, _INVARIANCES, _REFERENCE),)
