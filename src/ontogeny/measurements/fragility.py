"""Rows of fragility: the noise on the activations at which a probe breaks, with its interval."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.measurements import scores
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
from ontogeny.statistics.bootstrap import Interval

LARGEST_NOISE = 100.0
"""Noise, in standard deviations of the activations, beyond which a fragility is censored."""


def fragility_rows(
    design: Design,
    about: RowContext,
    method: str,
    fit: HeldOutProbe,
    held_out: Float[Tensor, "site test k"],
    x: Float[Tensor, "site example d"],
    sites: Sequence[Site],
) -> list[Record]:
    """`fragility` in standard deviations of the activations and `fragility_absolute` in their unit, of a probe of two classes.

    The interval holds each noise at which the interval of the balanced accuracy contains 0.6. Values end at 0 (broken without noise) and at
    `LARGEST_NOISE`; a note says so.
    """
    y = design.y_test
    if y.dtype != torch.bool:
        return []
    margins = torch.where(y, held_out[..., 0], -held_out[..., 0]) / fit.lengths(design)
    known = margins.isfinite().all(-1) & bool(y.any()) & bool((~y).any())
    margins = torch.where(known[:, None], margins, 0.0)
    value = first_crossing(margins, y, COLLAPSED_ACCURACY)
    grid = noise_grid(margins)
    fits = None if design.test_folds is None else scores.fit_share(held_out, design, width=x.shape[-1])
    ends = _accuracy_ends(design, margins, grid, fits)
    low = torch.minimum(interpolated_crossing(grid, ends.low, COLLAPSED_ACCURACY), value)
    high = torch.maximum(interpolated_crossing(grid, ends.high, COLLAPSED_ACCURACY), value)
    scale = x[:, design.split.test].var(1).mean(-1).sqrt()
    rows = []
    for site, *cell in zip(sites, known.tolist(), *(v.tolist() for v in (value, low, high, scale)), strict=True):
        rows += _cell_rows(about, method, site, *cell)
    return rows


def _accuracy_ends(
    design: Design, margins: Float[Tensor, "site test"], grid: Float[Tensor, "point site"], fits: Tensor | None
) -> Interval:
    """Interval of the balanced accuracy at each noise of the grid, `[point, site]`."""
    each = torch.cat([hits_under_noise(margins, design.y_test, noise) for noise in grid])
    shared = None if fits is None else fits.repeat(len(grid))
    ends = scores.design_mean(each, design, shared)
    return Interval(ends.low.unflatten(0, grid.shape), ends.high.unflatten(0, grid.shape))


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
