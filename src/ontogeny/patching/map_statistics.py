"""Statistics of patching maps, layer × token role: effect, correlation of two maps, and retention of an earlier stage's knowledge.

The effect of a cell is (D − D of the corrupt run) / (D of the clean run − D of the corrupt run), each D a mean over pairs of
log P(right) − log P(wrong): 0 changes nothing, 1 gives the other run's answer. Means are divided, not pairs: pairs that the model
hardly tells apart would dominate. Maps are correlated in raw D; `bin_cells` is what arXiv:2504.02904 does before (20 bins, the lower
ten set to 0), which makes most cells equal and so inflates the agreement.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.statistics.correlation import pearson_correlation

HOT_CELL_EFFECT = 0.2
"""Minimum effect of a cell that counts as a place of the knowledge."""
_SAME_CODE_SHARE = 0.5
"""Minimum share of a cell's own effect that another stage's state has there if both use the same code."""
FAINT_GAP_SHARE = 0.1
"""A stage whose clean-corrupt gap is below this share of the other stage's lacks the knowledge."""
ROUNDING_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class PatchMap:
    """Log odds of each pair when a cell is patched; NaN if a pair has no such token."""

    odds: Float[Tensor, "pair layer column"]
    floor: Float[Tensor, " pair"]
    """Log odds of the run that is patched."""
    ceiling: Float[Tensor, " pair"]
    """Log odds of the run that the patches come from."""
    free: Bool[Tensor, "layer column"]
    """Cells that the model decides; the effect of the others is 0 or 1 by construction."""


@dataclass(frozen=True, eq=False)
class Retention:
    """Shares of the cells that hold a later stage's knowledge, per resample."""

    kept: Float[Tensor, " sample"]
    """Places of the earlier stage where its state works at least half as well as the later stage's own."""
    adapted: Float[Tensor, " sample"]
    """Places of the earlier stage where its state works less than half as well."""
    new: Float[Tensor, " sample"]
    """Places that the earlier stage did not have."""
    lost: Float[Tensor, " sample"]
    """Share of the earlier stage's places that the later stage does not have."""
    transfer: Float[Tensor, " sample"]
    """Effect of the earlier states (clean minus corrupt) at the later places, divided by the later stage's own effect."""
    places: int
    """Number of cells that hold the later stage's knowledge."""


def mean_log_odds(map: PatchMap, weights: Float[Tensor, "sample pair"]) -> Float[Tensor, "sample layer column"]:
    """Mean of each cell over the pairs that have it."""
    held = (~map.odds.isnan()).double()
    total = torch.einsum("sp,plc->slc", weights.double(), map.odds.double().nan_to_num())
    return total / torch.einsum("sp,plc->slc", weights.double(), held)


def map_effect(map: PatchMap, weights: Float[Tensor, "sample pair"]) -> Float[Tensor, "sample layer column"]:
    """Effect of each cell over the pairs that have it."""
    w = weights.double()
    held = (~map.odds.isnan()).double()
    moved = torch.einsum("sp,plc->slc", w, (map.odds.double() - map.floor.double()[:, None, None]).nan_to_num())
    return moved / torch.einsum("sp,plc->slc", w * (map.ceiling - map.floor).double(), held)


def clean_corrupt_gap(map: PatchMap, weights: Float[Tensor, "sample pair"]) -> Float[Tensor, " sample"]:
    """Difference of the two unpatched runs, by which effects are divided."""
    w = weights.double()
    return (w @ (map.ceiling - map.floor).double()) / w.sum(1)


def bin_cells(cells: Float[Tensor, "*sample cell"]) -> Float[Tensor, "*sample cell"]:
    """Twenty bins of equal width between the smallest and the largest cell; the lower ten are 0, the upper ten 0.1 to 1."""
    low, high = cells.nan_to_num(torch.inf).amin(-1, keepdim=True), cells.nan_to_num(-torch.inf).amax(-1, keepdim=True)
    bins = ((cells - low) / (high - low).clamp(min=ROUNDING_TOLERANCE) * 20).floor().clamp(0, 19)
    return ((bins - 9) / 10).clamp(min=0)


def null_correlation(
    a: Float[Tensor, "layer column"], b: Float[Tensor, "layer column"], *, samples: int, seed: int
) -> Float[Tensor, " sample"]:
    """Pearson's r of two maps after whole layers and whole columns of one are permuted; NaN where too few cells meet.

    Single cells are not permuted: neighbouring cells are similar, so any two smooth maps would seem related.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = torch.rand(samples, a.shape[0], generator=generator).argsort(1)
    columns = torch.rand(samples, a.shape[1], generator=generator).argsort(1)
    shuffled = b[layers[:, :, None], columns[:, None, :]]
    return pearson_correlation(a.flatten().expand(samples, -1), shuffled.flatten(1))


def retention(
    earlier: Float[Tensor, "sample layer column"],
    later: Float[Tensor, "sample layer column"],
    crossed: Float[Tensor, "sample layer column"],
    free: Bool[Tensor, "layer column"],
) -> Retention:
    """Retention of an earlier stage's knowledge.

    Args:
        earlier: Effects in the earlier stage.
        later: Effects in the later stage.
        crossed: Effects of the earlier stage's clean minus corrupt states in the later stage.
        free: Cells that the model decides.
    """
    was, now = ((x >= HOT_CELL_EFFECT) & free for x in (earlier, later))
    works = crossed >= _SAME_CODE_SHARE * later
    places = now.flatten(1).sum(1).double()

    def share(cells: Tensor, of: Tensor) -> Float[Tensor, " sample"]:
        return torch.where(of > 0, cells.flatten(1).sum(1).double() / of, torch.nan)

    own = torch.where(now, later, 0.0).flatten(1).sum(1)
    return Retention(
        kept=share(now & was & works, places),
        adapted=share(now & was & ~works, places),
        new=share(now & ~was, places),
        lost=share(was & ~now, was.flatten(1).sum(1).double()),
        transfer=torch.where(places > 0, torch.where(now, crossed, 0.0).flatten(1).sum(1) / own, torch.nan),
        places=int(places[0]),
    )
