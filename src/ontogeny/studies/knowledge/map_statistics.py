"""Maps of patching, layer × kind of token, as numbers: effect with its interval, how alike two maps are, what a stage kept, adapted, made.

The effect of a cell is (D − D of the corrupt run) / (D of the clean run − D of the corrupt run), each D a mean over pairs of
log P(right) − log P(wrong): 0 changes nothing, 1 gives the other run's answer. Means are divided, not pairs: a pair that the model
hardly tells apart would drown the others. Two maps are compared in raw D by Pearson and Spearman; `binned` is what arXiv:2504.02904
does before it correlates (20 bins, the lower ten set to 0), which makes most cells equal and so inflates the agreement.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.statistics.permutation import average_ranks

HOT_CELL_EFFECT = 0.2
"""Effect from which a cell counts as a place of the knowledge."""
_SAME_CODE_SHARE = 0.5
"""Share of a cell's own effect that another stage's state must have there to count as the same code."""
FAINT_GAP_SHARE = 0.1
"""Share of the other stage's distance of clean from corrupt runs below which a stage is taken not to have the knowledge."""
ROUNDING_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class PatchMap:
    """Log odds of each pair under a patch of each cell; NaN where a pair has no such token."""

    odds: Float[Tensor, "pair layer column"]
    floor: Float[Tensor, " pair"]
    """Of the run that is patched."""
    ceiling: Float[Tensor, " pair"]
    """Of the run that the patches come from."""
    free: Bool[Tensor, "layer column"]
    """Cells that the model decides; in the others the effect is 0 or 1 whatever it has learned."""


@dataclass(frozen=True, eq=False)
class Retention:
    """Shares of the cells that hold a later stage's knowledge, and of an earlier one's: one number a resample."""

    kept: Float[Tensor, " sample"]
    """An earlier place, and the earlier state works there: at least half as well as its own."""
    adapted: Float[Tensor, " sample"]
    """An earlier place, where the earlier state works less than half as well."""
    new: Float[Tensor, " sample"]
    """No place of it before."""
    lost: Float[Tensor, " sample"]
    """Of the earlier places, those that are none any more."""
    transfer: Float[Tensor, " sample"]
    """Effect of the earlier states (clean less corrupt) at the later places, over the later stage's own effect there."""
    places: int
    """Cells that hold the later stage's knowledge."""


def mean_log_odds(map: PatchMap, weights: Float[Tensor, "sample pair"]) -> Float[Tensor, "sample layer column"]:
    held = (~map.odds.isnan()).double()
    total = torch.einsum("sp,plc->slc", weights.double(), map.odds.double().nan_to_num())
    return total / torch.einsum("sp,plc->slc", weights.double(), held)


def map_effect(map: PatchMap, weights: Float[Tensor, "sample pair"]) -> Float[Tensor, "sample layer column"]:
    """Of each cell, over the pairs that have it."""
    w = weights.double()
    held = (~map.odds.isnan()).double()
    moved = torch.einsum("sp,plc->slc", w, (map.odds.double() - map.floor.double()[:, None, None]).nan_to_num())
    return moved / torch.einsum("sp,plc->slc", w * (map.ceiling - map.floor).double(), held)


def clean_corrupt_gap(map: PatchMap, weights: Float[Tensor, "sample pair"]) -> Float[Tensor, " sample"]:
    """How far apart the two unpatched runs are; what effects are measured in."""
    w = weights.double()
    return (w @ (map.ceiling - map.floor).double()) / w.sum(1)


def pearson_correlation(a: Float[Tensor, "*sample cell"], b: Float[Tensor, "*sample cell"]) -> Float[Tensor, "*sample"]:
    """Over the cells that both have; NaN where one is constant."""
    seen = ~(a.isnan() | b.isnan())
    n = seen.sum(-1, keepdim=True)
    a, b = (torch.where(seen, x.double(), 0.0) for x in (a, b))
    a, b = (torch.where(seen, x - x.sum(-1, keepdim=True) / n, 0.0) for x in (a, b))
    scale = a.norm(dim=-1) * b.norm(dim=-1)
    return torch.where(scale > ROUNDING_TOLERANCE, (a * b).sum(-1) / scale, torch.nan)


def spearman_correlation(
    a: Float[Tensor, "*sample cell"], b: Float[Tensor, "*sample cell"]
) -> Float[Tensor, "*sample"]:
    """The same of ranks; cells that one lacks must be left out before."""
    return pearson_correlation(average_ranks(a), average_ranks(b))


def bin_cells(cells: Float[Tensor, "*sample cell"]) -> Float[Tensor, "*sample cell"]:
    """Twenty bins of equal width between the smallest and the largest; the lower ten are 0, the upper ten 0.1 to 1."""
    low, high = cells.amin(-1, keepdim=True), cells.amax(-1, keepdim=True)
    bins = ((cells - low) / (high - low).clamp(min=ROUNDING_TOLERANCE) * 20).floor().clamp(0, 19)
    return ((bins - 9) / 10).clamp(min=0)


def null_correlation(
    a: Float[Tensor, "layer column"], b: Float[Tensor, "layer column"], *, samples: int, seed: int
) -> Float[Tensor, " sample"]:
    """Pearson's r of one map with the other under whole layers and whole columns in another order.

    Not single cells: neighbours are alike, and cells shuffled one by one would make any two smooth maps seem related.
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
    """What became of the places of knowledge; `crossed`: the later stage with the earlier's clean states, less with its corrupt ones."""
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
