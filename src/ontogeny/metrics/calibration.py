"""Does a model know what it knows? Confidence against accuracy: reliability bins, expected calibration error, Brier score.

ECE (arXiv:1706.04599) in bins of equal width, its adaptive form in bins of equal counts (arXiv:1904.01685). Both are above 0
for a perfectly calibrated model, too, the more so the fewer the answers: `calibrated` says by how much.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.statistics._unique import unique_inverse, unique_values
from ontogeny.statistics.bootstrap import share_interval

Binning = Literal["width", "count"]


@dataclass(frozen=True)
class CalibrationBin:
    """Answers of about one confidence."""

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
    """Mean over the bins of |accuracy − confidence|, each as heavy as it has answers; one number for each row of weights.

    Raises:
        BadInput: no answers, or confidences outside of [0, 1].
    """
    inside = _bin_index(confidence, bins, by)
    w = torch.ones(1, len(right), dtype=torch.float64) if weights is None else weights.double()
    gaps = right.double() - confidence.double()
    sums = torch.zeros(len(w), bins, dtype=torch.float64).index_add(1, inside, w * gaps)
    return sums.abs().sum(1) / w.sum(1)


def perfect_calibration_error(
    confidence: Float[Tensor, " answer"], *, bins: int = 10, by: Binning = "width", samples: int = 1000, seed: int = 0
) -> Float[Tensor, " sample"]:
    """The ECE of a model that is right exactly as often as it says, on as many answers: what noise alone gives."""
    generator = torch.Generator().manual_seed(seed)
    inside = _bin_index(confidence, bins, by)
    sure = confidence.double()
    right = torch.rand(samples, len(sure), generator=generator, dtype=torch.float64) < sure
    sums = torch.zeros(samples, bins, dtype=torch.float64).index_add(1, inside, right.double() - sure)
    return sums.abs().sum(1) / len(sure)


def reliability_bins(
    confidence: Float[Tensor, " answer"], right: Bool[Tensor, " answer"], *, bins: int = 10, by: Binning = "width"
) -> list[CalibrationBin]:
    """The bins that hold an answer, from unsure to sure."""
    inside = _bin_index(confidence, bins, by)
    found = []
    for b in unique_values(inside).tolist():
        mine = inside == b
        n, sure, share = int(mine.sum()), confidence[mine].double(), right[mine].double().mean()
        spread = (share * (1 - share) / n).sqrt()
        # Two points at ± the binomial's spread: what the interval of a share asks for.
        ends = share_interval(share, torch.stack([share - spread, share + spread]), groups=max(2, n))
        low, high = (b / bins, (b + 1) / bins) if by == "width" else (float(sure.min()), float(sure.max()))
        found.append(CalibrationBin(low, high, n, float(sure.mean()), float(share), float(ends.low), float(ends.high)))
    return found


def brier_score(shares: Float[Tensor, "answer option"], right: Int[Tensor, " answer"]) -> Float[Tensor, " answer"]:
    """Σ over the options of (p − 1[right])², one number an answer: 0 for sure and right, 2 for sure and wrong."""
    wanted = torch.nn.functional.one_hot(right, shares.shape[1])
    return (shares.double() - wanted).square().sum(1)


def _bin_index(confidence: Float[Tensor, " answer"], bins: int, by: Binning) -> Int[Tensor, " answer"]:
    if not len(confidence) or bool(((confidence < 0) | (confidence > 1)).any()):
        raise BadInput(
            f"calibration needs confidences between 0 and 1; given {len(confidence)}, or one outside. Check them."
        )
    if by == "count":
        # Answers of one confidence stay in one bin, that of their middle.
        values, same = unique_inverse(confidence.double())
        counts = same.bincount(minlength=values)
        middle = counts.cumsum(0) - (counts + 1) / 2
        in_middle: Tensor = (middle[same] * bins / len(confidence)).long()
        return in_middle.clamp(max=bins - 1)
    return (confidence.double() * bins).long().clamp(max=bins - 1)
