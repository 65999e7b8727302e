"""Cosine of two learned directions, corrected for their estimation noise.

A direction from finitely many texts is a true one plus noise, so the plain cosine is too small, or too large if both directions come
from the same texts and share their noise. The noise is estimated by bootstrap (Efron 1979). In simulation
(tests/simulation/test_denoised_cosine.py) the plain cosine of two equal directions was .82, this one 1.00.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.records import UNKNOWN_INTERVAL, IntervalEnds
from ontogeny.statistics.bootstrap import interval_ends


def denoised_cosine(
    a: Float[Tensor, " d"],
    b: Float[Tensor, " d"],
    drawn_a: Float[Tensor, "sample d"],
    drawn_b: Float[Tensor, "sample d"],
    *,
    groups: int,
) -> tuple[float, IntervalEnds]:
    """The cosine and its 95 % interval; NaN if a direction is no longer than its noise.

    Args:
        drawn_a: Resamples of `a`, drawn together with those of `b`.
        groups: Number of resampled groups.
    """
    a, b, drawn_a, drawn_b = (x.double() for x in (a, b, drawn_a, drawn_b))
    noise_a, noise_b, noise_ab = (
        float(((x - centre_x) * (y - centre_y)).sum(1).mean())
        for x, centre_x, y, centre_y in ((drawn_a, a, drawn_a, a), (drawn_b, b, drawn_b, b), (drawn_a, a, drawn_b, b))
    )
    length_a, length_b = float(a @ a) - noise_a, float(b @ b) - noise_b
    if float(a @ a) <= noise_a or float(b @ b) <= noise_b:
        return math.nan, UNKNOWN_INTERVAL
    value = (float(a @ b) - noise_ab) / math.sqrt(length_a * length_b)
    # A resample holds the noise twice: from the texts, and from drawing among them.
    square_a, square_b = drawn_a.square().sum(1) - 2 * noise_a, drawn_b.square().sum(1) - 2 * noise_b
    known = (square_a > 0) & (square_b > 0)
    samples = ((drawn_a * drawn_b).sum(1) - 2 * noise_ab) / torch.where(known, square_a * square_b, torch.nan).sqrt()
    low, high = (max(-1.0, min(1.0, end)) for end in interval_ends(value, samples, groups=groups))
    return max(-1.0, min(1.0, value)), (low, high)
