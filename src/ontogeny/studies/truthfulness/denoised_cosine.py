"""How alike two learned directions are behind the noise of what they were learned from: their cosine without its bias.

A direction from finitely many texts is a true one plus noise, so cosines are too small, and too large where both were learned from the same
texts, whose noise they share. The bootstrap says how much: its draws scatter about the estimate as the estimate does about the truth
(Efron 1979). In simulation (tests/simulation/test_agreement.py) the plain cosine of two equal directions was .82, this one 1.00.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.jobs.compare.rows import UNKNOWN_INTERVAL, IntervalEnds
from ontogeny.statistics.bootstrap import percentile_interval


def denoised_cosine(
    a: Float[Tensor, " d"],
    b: Float[Tensor, " d"],
    drawn_a: Float[Tensor, "sample d"],
    drawn_b: Float[Tensor, "sample d"],
    *,
    groups: int,
) -> tuple[float, IntervalEnds]:
    """The cosine and its 95 % interval; NaN where one of the two is no longer than its noise. `drawn` are resamples, the same for both."""
    a, b, drawn_a, drawn_b = (x.double() for x in (a, b, drawn_a, drawn_b))
    noise = {
        key: float(((x - centre_x) * (y - centre_y)).sum(1).mean())
        for key, (x, centre_x, y, centre_y) in {
            "aa": (drawn_a, a, drawn_a, a),
            "bb": (drawn_b, b, drawn_b, b),
            "ab": (drawn_a, a, drawn_b, b),
        }.items()
    }
    lengths = (float(a @ a) - noise["aa"]) * (float(b @ b) - noise["bb"])
    if float(a @ a) <= noise["aa"] or float(b @ b) <= noise["bb"]:
        return math.nan, UNKNOWN_INTERVAL
    value = (float(a @ b) - noise["ab"]) / math.sqrt(lengths)
    # A resample holds the noise twice: once from the texts, once from drawing among them.
    square_a, square_b = (drawn_a.square().sum(1) - 2 * noise["aa"], drawn_b.square().sum(1) - 2 * noise["bb"])
    known = (square_a > 0) & (square_b > 0)
    samples = ((drawn_a * drawn_b).sum(1) - 2 * noise["ab"]) / torch.where(known, square_a * square_b, torch.nan).sqrt()
    ends = percentile_interval(torch.tensor([value], dtype=torch.float64), samples[:, None], groups=groups)
    low, high = (max(-1.0, min(1.0, float(end))) for end in (ends.low, ends.high))
    return max(-1.0, min(1.0, value)), (low, high)
