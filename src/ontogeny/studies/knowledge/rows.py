"""From maps of patching to rows: effects, floors, controls, comparisons; intervals by bootstrap over the pairs' groups."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.patching.activation_patching import PatchingCost
from ontogeny.records import Record, make_record
from ontogeny.sites import Site
from ontogeny.statistics.bootstrap import group_weights, percentile_interval, share_interval
from ontogeny.studies.knowledge import map_statistics as maps
from ontogeny.studies.knowledge.map_statistics import PatchMap
from ontogeny.studies.knowledge.patch_maps import DirectionEffects
from ontogeny.studies.knowledge.prompt_pairs import MinedPairs

_MAX_PEAK_COLUMNS = 4
"""Columns whose best cell is held against random directions: a control of every cell would cost more than the map."""
_NO_GAP_REASON = "the model does not tell the clean and the corrupt prompts apart: there is no effect to divide by"


@dataclass(frozen=True)
class KnowledgeRowContext:
    """Which stage, which pairs, how sure."""

    stage: str
    pairs: MinedPairs
    samples: int
    seed: int
    other: str | None = None

    @cached_property
    def groups(self) -> Int[Tensor, " pair"]:
        """Of the clean prompts; each pair its own where they are all of one."""
        names = [pair.drawn.clean.group for pair in self.pairs.pairs]
        distinct = list(dict.fromkeys(names))
        if len(distinct) < 2:
            return torch.arange(len(names))
        return torch.tensor([distinct.index(name) for name in names])

    @cached_property
    def weights(self) -> Float[Tensor, "sample pair"]:
        """The pairs as they are in the first row, then resamples of their groups."""
        every = torch.ones(1, len(self.pairs))
        if len(self.pairs) < 2:
            return every
        return torch.cat([every, group_weights(self.groups, samples=self.samples, seed=self.seed)])

    @property
    def number(self) -> int:
        """Groups."""
        return int(self.groups.max()) + 1


def missing_row(about: KnowledgeRowContext, metric: str, why: str, *, method: str | None = "patch") -> Record:
    return _row(about, metric, math.nan, method=method, note=why)


def stage_map_rows(
    about: KnowledgeRowContext, columns: Sequence[str], found: Mapping[str, PatchMap], cost: PatchingCost
) -> Iterator[Record]:
    """One stage's maps, what they stand on, and what they cost."""
    exact = found["patch"]
    note = cost.note or about.pairs.note
    for run, odds in (("clean", exact.ceiling), ("corrupt", exact.floor)):
        yield _sampled_row(about, "pair_log_odds", _held_means(about, odds), coords={"run": run}, note=note)
    apart = ((exact.ceiling > 0) & (exact.floor < 0)).double()
    yield _share(about, "pairs_told_apart", _held_means(about, apart))
    yield _row(about, "patch_cost", cost.computed / cost.needed, n=len(about.pairs), note=cost.note)
    for mode, map in found.items():
        known = is_above_chance(about, map)
        odds, effects = (how(map, about.weights) for how in (maps.mean_log_odds, maps.map_effect))
        yield from _cell_rows(about, columns, map, "patch_log_odds", odds, mode)
        yield from _cell_rows(
            about, columns, map, "patch_effect", effects, mode, reason=None if known else _NO_GAP_REASON
        )
        if mode != "patch":
            yield from _correlation_rows(about, f"{mode}_correlation", exact, map, mode)


def is_above_chance(about: KnowledgeRowContext, map: PatchMap) -> bool:
    """Whether the two unpatched runs differ beyond chance: the interval of their distance lies above 0."""
    spans = maps.clean_corrupt_gap(map, about.weights)
    if len(spans) == 1:
        return bool(spans[0] > 0)
    return bool(percentile_interval(spans[0], spans[1:], groups=about.number).low > 0)


def peak_layers(about: KnowledgeRowContext, columns: Sequence[str], map: PatchMap) -> dict[str, int]:
    """The layer at which a column's patch does most, among the cells that are free; of the columns where it does most."""
    if not is_above_chance(about, map):
        return {}
    effects = maps.map_effect(map, about.weights[:1])[0].masked_fill(~map.free, -torch.inf)
    best = effects.amax(0).nan_to_num(nan=-torch.inf).argsort(descending=True).tolist()
    return {columns[i]: int(effects[:, i].argmax()) for i in best[:_MAX_PEAK_COLUMNS] if map.free[:, i].any()}


def peak_direction_rows(
    about: KnowledgeRowContext,
    columns: Sequence[str],
    exact: PatchMap,
    tried: DirectionEffects,
    layers: Mapping[str, int],
    length: float,
) -> Iterator[Record]:
    """Effect of vectors added at each column's peak, as a share of the whole span: the patch's own and random ones."""
    spans = maps.clean_corrupt_gap(exact, about.weights)
    for i, name in enumerate(columns):
        if name not in layers:
            continue
        for control, moved in ((None, tried.along[:, i]), ("random_direction", tried.random[:, :, i].mean(0))):
            held = ~moved.isnan()
            share = _held_means(about, moved, held) / spans
            yield _sampled_row(
                about,
                "direction_effect",
                share,
                n=int(held.sum()),
                control=control,
                layer=layers[name],
                position=name,
                coords={"length": f"{length:g}"},
                note=None if control is None else f"{len(tried.random)} random directions a pair",
            )


def map_difference_rows(
    about: KnowledgeRowContext, columns: Sequence[str], earlier: PatchMap, later: PatchMap, *, binned_too: bool
) -> Iterator[Record]:
    """Difference and likeness of two stages' maps of the same pairs."""
    both = is_above_chance(about, earlier) and is_above_chance(about, later)
    difference = maps.map_effect(later, about.weights) - maps.map_effect(earlier, about.weights)
    reason = None if both else _NO_GAP_REASON
    yield from _cell_rows(about, columns, later, "patch_effect_difference", difference, "patch", reason=reason)
    yield from _correlation_rows(about, "map_correlation", earlier, later, "patch", binned_too=binned_too)


def cross_stage_rows(
    about: KnowledgeRowContext,
    columns: Sequence[str],
    theirs: PatchMap,
    own: PatchMap,
    crossed: PatchMap,
    other: PatchMap,
    *,
    forward: bool,
) -> Iterator[Record]:
    """`about.other`'s clean and corrupt states in `about.stage`'s corrupt runs; forward also what became of the places of knowledge."""
    reason = None if is_above_chance(about, own) else _NO_GAP_REASON
    clean, corrupt = (maps.map_effect(map, about.weights) for map in (crossed, other))
    yield from _cell_rows(about, columns, crossed, "patch_effect", clean, "cross_patch", reason=reason)
    yield from _cell_rows(
        about, columns, other, "patch_effect", corrupt, "cross_patch", reason=reason, control="corrupt_states"
    )
    yield from _cell_rows(about, columns, crossed, "cross_effect", clean - corrupt, "cross_patch", reason=reason)
    mine, spans = (
        maps.map_effect(own, about.weights),
        [float(maps.clean_corrupt_gap(map, about.weights[:1])) for map in (theirs, own)],
    )
    if reason is None and spans[1] < maps.FAINT_GAP_SHARE * spans[0]:
        reason = (
            f"{about.stage} tells the prompts apart {spans[1] / spans[0]:.2g} times as far as {about.other}: too little"
        )
    # Where the source tells nothing apart, or next to nothing, it has no places of this knowledge.
    has = is_above_chance(about, theirs) and spans[0] >= maps.FAINT_GAP_SHARE * spans[1]
    was = maps.map_effect(theirs, about.weights) if has else torch.zeros_like(mine)
    fates = maps.retention(was, mine, clean - corrupt, own.free)
    for name in ("kept", "adapted", "new", "lost", "transfer") if forward else ("transfer",):
        values = getattr(fates, name)
        if reason is not None or values[0].isnan():
            why = reason or (
                f"{about.other} has no place of it"
                if name == "lost"
                else f"no effect of {maps.HOT_CELL_EFFECT:g} anywhere"
            )
            yield missing_row(about, f"knowledge_{name}", why, method="cross_patch")
        else:
            note = f"{fates.places} places with an effect of {maps.HOT_CELL_EFFECT:g} or more"
            within = (-math.inf, math.inf) if name == "transfer" else (0.0, 1.0)
            yield _sampled_row(about, f"knowledge_{name}", values, method="cross_patch", note=note, within=within)


def _correlation_rows(
    about: KnowledgeRowContext, metric: str, a: PatchMap, b: PatchMap, mode: str, *, binned_too: bool = False
) -> Iterator[Record]:
    """Pearson and Spearman of two maps over their free cells, in raw log odds, with the p of a permutation."""
    free = a.free & b.free
    if int(free.sum()) < 3:
        yield _row(
            about, metric, math.nan, method="pearson", note=f"{int(free.sum())} free cells are too few to correlate"
        )
        return
    x, y = (maps.mean_log_odds(map, about.weights) for map in (a, b))
    cells = [z[:, free] for z in (x, y)]
    r = maps.pearson_correlation(*cells)
    null = maps.null_correlation(
        *(z[0].masked_fill(~free, torch.nan) for z in (x, y)), samples=about.samples, seed=about.seed
    )
    p = float((1 + (null >= r[0] - maps.ROUNDING_TOLERANCE).sum()) / (1 + len(null)))
    note = f"{int(free.sum())} cells; permutation of layers and columns p = {p:.3g}"
    kinds = {"pearson": r, "spearman": maps.spearman_correlation(*cells)}
    if binned_too:
        kinds["pearson_binned"] = maps.pearson_correlation(*(maps.bin_cells(z) for z in cells))
    for method, values in kinds.items():
        said = note + ("; binned before, which inflates it" if method == "pearson_binned" else "")
        constant = bool(values[0].isnan())
        told = "a map is constant" if constant else said
        if constant:
            yield _row(about, metric, math.nan, method=method, note=told, coords={"of": mode})
        else:
            yield _sampled_row(about, metric, values, method=method, note=told, coords={"of": mode}, within=(-1.0, 1.0))
    yield _row(about, f"{metric}_p", p, n=len(about.pairs), method="pearson", coords={"of": mode}, note=note)


def _cell_rows(
    about: KnowledgeRowContext,
    columns: Sequence[str],
    map: PatchMap,
    metric: str,
    values: Float[Tensor, "sample layer column"],
    mode: str,
    *,
    reason: str | None = None,
    control: str | None = None,
) -> Iterator[Record]:
    held = ~map.odds[:, 0].isnan()
    for column, name in enumerate(columns):
        for layer in range(values.shape[1]):
            cell: dict[str, Any] = {
                "layer": layer,
                "position": name,
                "method": mode,
                "control": control,
                "coords": {"place": f"{column}"},
            }
            one = values[:, layer, column]
            if reason is not None or bool(one[0].isnan()):
                yield _row(about, metric, math.nan, **cell, note=reason or "no pair has this token")
                continue
            note = None if map.free[layer, column] else "so by construction, whatever the model has learned"
            yield _sampled_row(about, metric, one, n=int(held[:, column].sum()), **cell, note=note)


def _held_means(
    about: KnowledgeRowContext, values: Float[Tensor, " pair"], held: Tensor | None = None
) -> Float[Tensor, " sample"]:
    w = about.weights.double() if held is None else about.weights.double() * held
    return (w @ values.double().nan_to_num()) / w.sum(1)


def _share(about: KnowledgeRowContext, metric: str, values: Float[Tensor, " sample"]) -> Record:
    low = high = math.nan
    if len(values) > 1:
        ends = share_interval(values[0], values[1:], groups=about.number)
        low, high = float(ends.low), float(ends.high)
    return _row(about, metric, float(values[0]), low=low, high=high, n=len(about.pairs))


def _sampled_row(
    about: KnowledgeRowContext,
    metric: str,
    values: Float[Tensor, " sample"],
    *,
    n: int | None = None,
    method: str = "patch",
    control: str | None = None,
    layer: int | None = None,
    position: str | None = None,
    coords: Mapping[str, str] | None = None,
    note: str | None = None,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Record:
    """A row whose value is the first sample, its interval from the others; `within` is what the metric's values can be."""
    low = high = math.nan
    if len(values) > 1:
        ends = percentile_interval(values[0], values[1:], groups=about.number)
        low, high = max(float(ends.low), within[0]), min(float(ends.high), within[1])
    return _row(
        about, metric, float(values[0]), low=low, high=high, n=len(about.pairs) if n is None else n, method=method,
        control=control, layer=layer, position=position, coords=coords, note=note,
    )  # fmt: skip


def _row(
    about: KnowledgeRowContext,
    metric: str,
    value: float,
    *,
    low: float = math.nan,
    high: float = math.nan,
    n: int = 0,
    method: str | None = "patch",
    control: str | None = None,
    layer: int | None = None,
    position: str | None = None,
    coords: Mapping[str, str] | None = None,
    note: str | None = None,
) -> Record:
    other = {} if about.other is None else {"other_stage": about.other}
    return make_record(
        metric,
        value,
        site=None if layer is None else Site("resid", layer),
        interval=(low, high),
        n=n,
        note=note,
        stage=about.stage,
        concept=about.pairs.concept,
        position=position,
        method=method,
        control=control,
        split="all",
        seed=about.seed,
        coords={"pairing": about.pairs.pairing, **(coords or {}), **other},
    )
