"""Rows of patching maps: effects, baselines, controls and comparisons, with intervals by bootstrap over the groups of the pairs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.patching import map_statistics as maps
from ontogeny.patching.activation_patching import PatchingCost
from ontogeny.patching.map_statistics import PatchMap
from ontogeny.patching.patch_maps import DirectionEffects
from ontogeny.patching.prompt_pairs import MinedPairs
from ontogeny.records import UNKNOWN_INTERVAL, IntervalEnds, Record, StageRowBuilder
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights, interval_ends, share_interval
from ontogeny.statistics.correlation import pearson_correlation, spearman_correlation
from ontogeny.statistics.splits import number_groups

_MAX_PEAK_COLUMNS = 4
"""Columns whose best cell is compared with random directions: a control of every cell would cost more than the map."""
_NO_GAP_REASON = "the model does not tell the clean and the corrupt prompts apart: there is no effect to divide by"
_UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True)
class MapRowContext:
    """Stage, pairs and resamples of a set of rows."""

    stage: str
    pairs: MinedPairs
    samples: int
    seed: int
    other: str | None = None

    @cached_property
    def groups(self) -> Int[Tensor, " pair"]:
        """Groups of the clean prompts; each pair its own if they are all of one."""
        groups = number_groups([pair.drawn.clean.group for pair in self.pairs.pairs])
        return groups if int(groups.max()) else torch.arange(len(groups))

    @cached_property
    def weights(self) -> Float[Tensor, "sample pair"]:
        """All pairs once in the first row, then resamples of their groups."""
        every = torch.ones(1, len(self.pairs))
        if len(self.pairs) < 2:
            return every
        return torch.cat([every, group_weights(self.groups, samples=self.samples, seed=self.seed)])

    @property
    def number(self) -> int:
        """Number of groups."""
        return int(self.groups.max()) + 1

    def mean(self, values: Float[Tensor, " pair"], held: Tensor | None = None) -> Float[Tensor, " sample"]:
        """Mean over the pairs, or over the `held` ones, on every resample."""
        w = self.weights.double() if held is None else self.weights.double() * held
        return (w @ values.double().nan_to_num()) / w.sum(1)

    def row(
        self,
        metric: str,
        value: float,
        *,
        n: int | None = None,
        ends: IntervalEnds = UNKNOWN_INTERVAL,
        method: str = "patch",
        layer: int | None = None,
        position: str | None = None,
        control: str | None = None,
        note: str | None = None,
        **coords: str,
    ) -> Record:
        """One row; `n` is the number of pairs by default."""
        site = None if layer is None else Site("resid", layer)
        table = StageRowBuilder(self.pairs.concept, position, method, self.seed, "all", site)
        n, coords = len(self.pairs) if n is None else n, {"pairing": self.pairs.pairing, **coords}
        return table.row(
            metric, value, self.stage, self.other, n=n, ends=ends, control=control, note=note, reason=note, **coords
        )

    def sampled(
        self, metric: str, values: Float[Tensor, " sample"], *, within: IntervalEnds = _UNBOUNDED, **columns: Any
    ) -> Record:
        """A row whose value is the first sample and whose interval comes from the others."""
        ends = UNKNOWN_INTERVAL
        if len(values) > 1:
            ends = interval_ends(values[0], values[1:], groups=self.number, within=within)
        return self.row(metric, float(values[0]), ends=ends, **columns)

    def missing(self, metric: str, why: str, **columns: Any) -> Record:
        return self.row(metric, math.nan, note=why, **columns)

    def is_above_chance(self, map: PatchMap) -> bool:
        """Whether the clean and the corrupt run differ: the interval of their gap is above 0."""
        gaps = maps.clean_corrupt_gap(map, self.weights)
        low = gaps[0] if len(gaps) == 1 else interval_ends(gaps[0], gaps[1:], groups=self.number)[0]
        return bool(low > 0)


def stage_map_rows(
    about: MapRowContext, columns: Sequence[str], by_mode: Mapping[str, PatchMap], cost: PatchingCost
) -> Iterator[Record]:
    """Maps of one stage, the log odds of its unpatched runs, and the cost of patching."""
    exact = by_mode["patch"]
    for run, odds in (("clean", exact.ceiling), ("corrupt", exact.floor)):
        yield about.sampled("pair_log_odds", about.mean(odds), note=cost.note or about.pairs.note, run=run)
    apart = about.mean(((exact.ceiling > 0) & (exact.floor < 0)).double())
    ends = UNKNOWN_INTERVAL
    if len(apart) > 1:
        interval = share_interval(apart[0], apart[1:], groups=about.number)
        ends = float(interval.low), float(interval.high)
    yield about.row("pairs_told_apart", float(apart[0]), ends=ends)
    yield about.row("patch_cost", cost.computed / cost.needed, note=cost.note)
    for mode, map in by_mode.items():
        odds, effects = (of(map, about.weights) for of in (maps.mean_log_odds, maps.map_effect))
        reason = None if about.is_above_chance(map) else _NO_GAP_REASON
        yield from _cell_rows(about, columns, map, "patch_log_odds", odds, mode)
        yield from _cell_rows(about, columns, map, "patch_effect", effects, mode, reason=reason)
        if mode != "patch":
            yield from _correlation_rows(about, f"{mode}_correlation", exact, map, mode)


def peak_layers(about: MapRowContext, columns: Sequence[str], map: PatchMap) -> dict[str, int]:
    """Layer with the largest effect among the free cells, of the columns with the largest effects."""
    if not about.is_above_chance(map):
        return {}
    effects = maps.map_effect(map, about.weights[:1])[0].masked_fill(~map.free, -torch.inf)
    best = effects.amax(0).nan_to_num(nan=-torch.inf).argsort(descending=True).tolist()
    return {columns[i]: int(effects[:, i].argmax()) for i in best[:_MAX_PEAK_COLUMNS] if map.free[:, i].any()}


def peak_direction_rows(
    about: MapRowContext,
    columns: Sequence[str],
    exact: PatchMap,
    effects: DirectionEffects,
    layers: Mapping[str, int],
    length: float,
) -> Iterator[Record]:
    """Effect of the patch's own direction and of random ones at each column's peak, as a share of the clean-corrupt gap."""
    gaps = maps.clean_corrupt_gap(exact, about.weights)
    for i, name in enumerate(columns):
        if name not in layers:
            continue
        for control, moved in ((None, effects.along[:, i]), ("random_direction", effects.random[:, :, i].mean(0))):
            held = ~moved.isnan()
            yield about.sampled(
                "direction_effect",
                about.mean(moved, held) / gaps,
                n=int(held.sum()),
                control=control,
                layer=layers[name],
                position=name,
                length=f"{length:g}",
                note=None if control is None else f"{len(effects.random)} random directions a pair",
            )


def map_difference_rows(
    about: MapRowContext, columns: Sequence[str], earlier: PatchMap, later: PatchMap, *, binned_too: bool
) -> Iterator[Record]:
    """Difference and correlation of two stages' maps of the same pairs."""
    reason = None if about.is_above_chance(earlier) and about.is_above_chance(later) else _NO_GAP_REASON
    difference = maps.map_effect(later, about.weights) - maps.map_effect(earlier, about.weights)
    yield from _cell_rows(about, columns, later, "patch_effect_difference", difference, "patch", reason=reason)
    yield from _correlation_rows(about, "map_correlation", earlier, later, "patch", binned_too=binned_too)


def cross_stage_rows(
    about: MapRowContext,
    columns: Sequence[str],
    source: PatchMap,
    own: PatchMap,
    crossed: PatchMap,
    other: PatchMap,
    *,
    forward: bool,
) -> Iterator[Record]:
    """States of `about.other` in the corrupt runs of `about.stage`; with `forward` also the retention of its knowledge.

    Args:
        source: Map of the other stage.
        own: Map of the stage.
        crossed: The other stage's clean states in the stage's corrupt runs.
        other: The other stage's corrupt states in them.
    """
    reason = None if about.is_above_chance(own) else _NO_GAP_REASON
    clean, corrupt, effects = (maps.map_effect(map, about.weights) for map in (crossed, other, own))
    method, control = "cross_patch", "corrupt_states"
    yield from _cell_rows(about, columns, crossed, "patch_effect", clean, method, reason=reason)
    yield from _cell_rows(about, columns, other, "patch_effect", corrupt, method, reason=reason, control=control)
    yield from _cell_rows(about, columns, crossed, "cross_effect", clean - corrupt, method, reason=reason)
    far, near = (float(maps.clean_corrupt_gap(map, about.weights[:1])) for map in (source, own))
    if reason is None and near < maps.FAINT_GAP_SHARE * far:
        reason = f"{about.stage} tells the prompts apart {near / far:.2g} times as far as {about.other}: too little"
    # A source that hardly tells the prompts apart has no places of this knowledge.
    knows = about.is_above_chance(source) and far >= maps.FAINT_GAP_SHARE * near
    was = maps.map_effect(source, about.weights) if knows else torch.zeros_like(effects)
    retained = maps.retention(was, effects, clean - corrupt, own.free)
    for name in ("kept", "adapted", "new", "lost", "transfer") if forward else ("transfer",):
        values = getattr(retained, name)
        if reason is not None or values[0].isnan():
            nowhere = f"no effect of {maps.HOT_CELL_EFFECT:g} anywhere"
            why = reason or (f"{about.other} has no place of it" if name == "lost" else nowhere)
            yield about.missing(f"knowledge_{name}", why, method=method)
        else:
            note = f"{retained.places} places with an effect of {maps.HOT_CELL_EFFECT:g} or more"
            within = _UNBOUNDED if name == "transfer" else (0.0, 1.0)
            yield about.sampled(f"knowledge_{name}", values, method=method, note=note, within=within)


def _correlation_rows(
    about: MapRowContext, metric: str, a: PatchMap, b: PatchMap, mode: str, *, binned_too: bool = False
) -> Iterator[Record]:
    """Pearson and Spearman correlation of the free cells of two maps, in raw log odds, with a permutation p."""
    free = a.free & b.free
    count = int(free.sum())
    if count < 3:
        yield about.missing(metric, f"{count} free cells are too few to correlate", method="pearson")
        return
    x, y = (maps.mean_log_odds(map, about.weights) for map in (a, b))
    cells = [z[:, free] for z in (x, y)]
    r = pearson_correlation(*cells)
    whole = (z[0].masked_fill(~free, torch.nan) for z in (x, y))
    null = maps.null_correlation(*whole, samples=about.samples, seed=about.seed)
    null = null[~null.isnan()]
    p = float((1 + (null >= r[0] - maps.ROUNDING_TOLERANCE).sum()) / (1 + len(null)))
    note = f"{count} cells; permutation of layers and columns p = {p:.3g}"
    kinds = {"pearson": r, "spearman": spearman_correlation(*cells)}
    if binned_too:
        kinds["pearson_binned"] = pearson_correlation(*(maps.bin_cells(z) for z in cells))
    for method, values in kinds.items():
        if values[0].isnan():
            yield about.missing(metric, "a map is constant", method=method, of=mode)
            continue
        inflated = "; binned before, which inflates it" if method == "pearson_binned" else ""
        yield about.sampled(metric, values, method=method, note=note + inflated, of=mode, within=(-1.0, 1.0))
    yield about.row(f"{metric}_p", p, method="pearson", of=mode, note=note)


def _cell_rows(
    about: MapRowContext,
    columns: Sequence[str],
    map: PatchMap,
    metric: str,
    values: Float[Tensor, "sample layer column"],
    mode: str,
    *,
    reason: str | None = None,
    control: str | None = None,
) -> Iterator[Record]:
    """One row per layer and column; all of them NaN with a `reason`."""
    held = (~map.odds[:, 0].isnan()).sum(0).tolist()
    for column, name in enumerate(columns):
        cell: dict[str, Any] = {"position": name, "method": mode, "control": control, "place": f"{column}"}
        for layer in range(values.shape[1]):
            samples = values[:, layer, column]
            if reason is not None or bool(samples[0].isnan()):
                yield about.missing(metric, reason or "no pair has this token", layer=layer, **cell)
                continue
            note = None if map.free[layer, column] else "so by construction, whatever the model has learned"
            yield about.sampled(metric, samples, n=held[column], note=note, layer=layer, **cell)
