"""Rows of fragility: the noise on the activations at which a probe breaks, with its interval."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.measurements import scores
from ontogeny.measurements.cross_fitted_scores import CrossFittedScores
from ontogeny.measurements.design import Design
from ontogeny.measurements.held_out_probe import HeldOutProbe
from ontogeny.measurements.rows import RowContext
from ontogeny.metrics.fragility import (
    COLLAPSED_ACCURACY,
    first_crossing,
    hits_under_noise,
    interpolated_crossing,
    noise_grid,
)
from ontogeny.records import Record
from ontogeny.sites import Site

LARGEST_NOISE = 100.0
"""Noise, in standard deviations of the activations, beyond which a fragility is censored."""
_BLOCK = 2**18
"""Margins of examples to which noise is added at once."""


def fragility_rows(
    design: Design,
    about: RowContext,
    method: str,
    fit: HeldOutProbe,
    held_out: Float[Tensor, "site test k"],
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
    *,
    cross_fitted: CrossFittedScores | None,
) -> list[Record]:
    """`fragility` in standard deviations of the activations and `fragility_absolute` in their unit, of a probe of two classes.

    The interval holds each noise at which the interval of the balanced accuracy contains 0.6. Values end at 0 (broken without noise) and at
    `LARGEST_NOISE`; a note says so.

    Args:
        cross_fitted: From `scores.cross_fitted_scores`.
    """
    y = design.y_test
    if y.dtype != torch.bool:
        return []
    margins = torch.where(y, held_out[..., 0], -held_out[..., 0]) / fit.lengths(design)
    known = margins.isfinite().all(-1) & bool(y.any()) & bool((~y).any())
    margins = torch.where(known[:, None], margins, 0.0)
    fits = None if cross_fitted is None else cross_fitted.fit_share
    size = max(1, _BLOCK // len(y))
    shares = [None] * -(-len(margins) // size) if fits is None else fits.split(size)
    blocks = [_collapse(design, *block) for block in zip(margins.split(size), shares, strict=True)]
    value, low, high = (torch.cat(part) for part in zip(*blocks, strict=True))
    scale = x[:, design.split.test].var(1).mean(-1).sqrt()
    rows = []
    for site, *cell in zip(sites, known.tolist(), *(v.tolist() for v in (value, low, high, scale)), strict=True):
        rows += _cell_rows(about, method, site, *cell)
    return rows


def _collapse(
    design: Design, margins: Float[Tensor, "site test"], fits: Float[Tensor, " site"] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The noise at which the balanced accuracy falls to 0.6 at each site, and the ends of its interval."""
    y, grid = design.y_test, noise_grid(margins)
    each = torch.stack([hits_under_noise(margins, y, noise) for noise in grid])
    curve = each.mean(-1)
    value = first_crossing(margins, y, COLLAPSED_ACCURACY, curve=curve)
    below, above = _half_widths(design, each, fits)
    low = torch.minimum(interpolated_crossing(grid, curve - below, COLLAPSED_ACCURACY), value)
    high = torch.maximum(interpolated_crossing(grid, curve + above, COLLAPSED_ACCURACY), value)
    return value, low, high


def _half_widths(
    design: Design, each: Float[Tensor, "point site test"], fits: Tensor | None
) -> tuple[Float[Tensor, "point site"], Float[Tensor, "point site"]]:
    """How far the interval of the balanced accuracy reaches below and above it at each noise.

    It is computed at every second one, since resampling is the cost, and in between by the mean: it changes slowly.
    """
    some = each[::2]
    ends = scores.design_mean(some.flatten(0, 1), design, None if fits is None else fits.repeat(len(some)))
    mean = some.mean(-1)
    return _fill_between(mean - ends.low.view_as(mean)), _fill_between(ends.high.view_as(mean) - mean)


def _fill_between(values: Float[Tensor, "half site"]) -> Float[Tensor, "point site"]:
    """Means of neighbours between the values."""
    filled = values.repeat_interleave(2, dim=0)[:-1]
    filled[1::2] = (values[1:] + values[:-1]) / 2
    return filled


def _cell_rows(
    about: RowContext, method: str, site: Site, known: bool, value: float, low: float, high: float, scale: float
) -> list[Record]:
    if not known or not scale > 0:
        reason = "degenerate scores" if scale > 0 else "the activations do not vary"
        names = ("fragility", "fragility_absolute")
        return [about.row(name, math.nan, site, method=method, reason=reason) for name in names]
    most = LARGEST_NOISE * scale
    note = None
    if value == 0:
        note = f"censored at 0: balanced accuracy is at most {COLLAPSED_ACCURACY} without noise"
    elif value > most:
        note = f"censored at {LARGEST_NOISE:g}: the probe bears more noise"
    value, low, high = (min(v, most) for v in (value, low, high))
    return [
        about.row(name, value / unit, site, method=method, interval=(low / unit, high / unit), note=note)
        for name, unit in (("fragility", scale), ("fragility_absolute", 1.0))
    ]
