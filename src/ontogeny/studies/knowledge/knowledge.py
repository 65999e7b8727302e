"""Where each stage keeps what it knows, and what later stages kept of it: causal tracing by patching (arXiv:2202.05262, 2504.02904).

A clean and a corrupt prompt differ in one place and have different right answers. Each layer × token of the corrupt run is given the clean
run's state; where that brings the clean answer back, the knowledge passes. Per stage a map; between stages the difference of their maps,
how alike they are, and cross-patching: one stage's clean states in another's corrupt run, both ways, against what its corrupt states
do there: a foreign state may wipe out what stands, and that alone moves the answer half-way.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from ontogeny.errors import BadInput, unknown_name
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.records import Record
from ontogeny.studies.knowledge import rows
from ontogeny.studies.knowledge.map_statistics import PatchMap
from ontogeny.studies.knowledge.patch_maps import (
    CleanCorruptStates,
    PairLayout,
    PatchModes,
    add_peak_directions,
    compute_patch_maps,
    layout_pairs,
)
from ontogeny.studies.knowledge.prompt_pairs import MinedPairs, realign_pairs

StagePairSelection = Literal["auto", "all", "ends", "none"]
_MAX_STAGES_ALL_PAIRS = 4
"""Stages of which `auto` compares every two; of more, neighbours and the two ends."""
_SMALL_STEP = 0.01
"""Share of a patch's change that is added where its direction is held against random ones: at full length, a random vector erases what
stands, and that alone moves the answer."""


@dataclass(frozen=True)
class KnowledgeSettings:
    """What is measured of the pairs."""

    noise: int = 3
    """Draws of the noise that corrupts the subject's embeddings; 0 leaves this mode out."""
    noise_scale: float = 3.0
    """Standard deviation of the noise, in those of the embeddings it covers."""
    attribution: bool = True
    """The fast approximation too, and its correlation with exact patching."""
    cross: StagePairSelection = "auto"
    """Which stages exchange their states: every two, the first and the last, none."""
    binned: bool = False
    """Also the paper's correlation of binned maps, which inflates the agreement."""
    draws: int = 16
    """Random directions of the control, for each pair and cell; 0 leaves the control out."""
    samples: int = 1000
    """Of the bootstrap over pairs and of the permutations."""
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cross not in get_args(StagePairSelection):
            raise unknown_name("choice of stages", self.cross, get_args(StagePairSelection))
        if min(self.noise, self.draws) < 0 or self.samples < 100 or self.batch < 1:
            raise BadInput(
                "noise and draws are counts from 0 on, samples from 100, batch from 1. Correct the one that is not."
            )


@dataclass(frozen=True, eq=False)
class TracedStage:
    """What is kept of a stage once its model may go."""

    name: str
    shape: tuple[int, int]
    """Blocks and width."""
    tokenizer: str
    layout: PairLayout
    exact: PatchMap
    states: CleanCorruptStates = field(repr=False)


def run_knowledge_study(
    models: Mapping[str, Model],
    pairs: MinedPairs,
    settings: KnowledgeSettings | None = None,
    *,
    on_stage: Callable[[str], None] | None = None,
) -> Iterator[Record]:
    """Rows of every stage, then of every two that are compared. `stage`, and `other_stage` of the coords, are the names of the models.

    Each stage is visited once, and once more where its corrupt runs wait for a later stage's states.

    Raises:
        BadInput: no pairs, a prompt that exceeds a context, or a model that foretells no next token.
    """
    settings = settings or KnowledgeSettings()
    if not len(pairs):
        raise BadInput(
            f"there are no pairs of {pairs.concept} to patch ({pairs.note}). Mine them from more statements."
        )
    names = list(models)
    crossed = _stage_pairs(names, settings.cross)
    compared = list(dict.fromkeys([*crossed, *_stage_pairs(names, "auto")]))
    seen: dict[str, TracedStage] = {}
    maps: dict[tuple[str, str], tuple[PatchMap, PatchMap]] = {}
    for name in names:
        found = yield from _stage_rows(
            models[name], name, pairs, settings, [a for a, b in crossed if b == name], seen, maps
        )
        if found is not None:
            seen[name] = found
        if on_stage:
            on_stage(name)
    for name in reversed(names):
        sources = {b: seen[b].states for a, b in crossed if a == name and _why_incompatible(seen, a, b) is None}
        if sources:
            made = compute_patch_maps(
                models[name], seen[name].layout, PatchModes(patch=False), sources=sources, seed=settings.seed
            )
            maps |= {(b, name): (made.maps[f"cross:{b}"], made.maps[f"other:{b}"]) for b in sources}
            if on_stage:
                on_stage(name)
    for a, b in compared:
        yield from _stage_pair_rows(a, b, pairs, settings, seen, maps, (a, b) in crossed)


def _stage_pairs(names: list[str], how: StagePairSelection) -> list[tuple[str, str]]:
    """Earlier and later stage of each comparison."""
    if how == "none" or len(names) < 2:
        return []
    if how == "all" or (how == "auto" and len(names) <= _MAX_STAGES_ALL_PAIRS):
        return list(itertools.combinations(names, 2))
    ends = [(names[0], names[-1])]
    return ends if how == "ends" else list(dict.fromkeys([*itertools.pairwise(names), *ends]))


def _stage_rows(
    model: Model,
    name: str,
    pairs: MinedPairs,
    settings: KnowledgeSettings,
    earlier: list[str],
    seen: Mapping[str, TracedStage],
    maps: dict[tuple[str, str], tuple[PatchMap, PatchMap]],
) -> Generator[Record, None, TracedStage | None]:
    first = next(iter(seen.values()), None)
    tokenizer = tokenizer_fingerprint(model)
    mine = pairs if first is None or first.tokenizer == tokenizer else realign_pairs(pairs, model.tokenizer)
    about = rows.KnowledgeRowContext(name, mine, settings.samples, settings.seed)
    if not len(mine):
        yield rows.missing_row(
            about, "patch_effect", f"none of the {len(pairs)} pairs aligns under this stage's tokenizer"
        )
        return None
    if (longest := max(len(pair.clean) for pair in mine.pairs)) > model.context:
        raise BadInput(
            f"a prompt of {longest} tokens exceeds the context of {model.context} of {name}. Ask with fewer shots."
        )
    layout = layout_pairs(mine.pairs, batch=settings.batch)
    shape = (model.layers, model.d)
    sources = {a: seen[a].states for a in earlier if a in seen and _differ(seen[a], shape, tokenizer) is None}
    modes = PatchModes(True, settings.noise, settings.noise_scale, settings.attribution)
    made = compute_patch_maps(model, layout, modes, sources=sources, seed=settings.seed)
    maps |= {(a, name): (made.maps[f"cross:{a}"], made.maps[f"other:{a}"]) for a in sources}
    exact = made.maps["patch"]
    yield from rows.stage_map_rows(
        about, layout.columns, {m: v for m, v in made.maps.items() if ":" not in m}, made.cost
    )
    if settings.draws and (peaks := rows.peak_layers(about, layout.columns, exact)):
        for length in (1.0, _SMALL_STEP):
            tried = add_peak_directions(
                model, layout, peaks, length=length, draws=settings.draws, seed=settings.seed, cost=made.cost
            )
            yield from rows.peak_direction_rows(about, layout.columns, exact, tried, peaks, length)
    return TracedStage(name, shape, tokenizer, layout, exact, made.states)


def _why_incompatible(seen: Mapping[str, TracedStage], a: str, b: str) -> str | None:
    """Why two stages cannot exchange states."""
    if a not in seen or b not in seen:
        return f"{a if a not in seen else b} has no map"
    return _differ(seen[a], seen[b].shape, seen[b].tokenizer)


def _differ(one: TracedStage, shape: tuple[int, int], tokenizer: str) -> str | None:
    if one.shape != shape:
        return f"{one.shape[0]} blocks of width {one.shape[1]} and {shape[0]} of {shape[1]}: the states of one do not fit the other"
    return None if one.tokenizer == tokenizer else "other tokenizers: the same tokens are not at the same places"


def _stage_pair_rows(
    a: str,
    b: str,
    pairs: MinedPairs,
    settings: KnowledgeSettings,
    seen: Mapping[str, TracedStage],
    maps: Mapping[tuple[str, str], tuple[PatchMap, PatchMap]],
    crossed: bool,
) -> Iterator[Record]:
    about = rows.KnowledgeRowContext(b, pairs, settings.samples, settings.seed, other=a)
    if (why := _why_incompatible(seen, a, b)) is not None:
        yield rows.missing_row(about, "map_correlation", why)
        if crossed:
            yield rows.missing_row(about, "knowledge_transfer", why)
        return
    columns = seen[b].layout.columns
    yield from rows.map_difference_rows(about, columns, seen[a].exact, seen[b].exact, binned_too=settings.binned)
    if crossed:
        yield from rows.cross_stage_rows(about, columns, seen[a].exact, seen[b].exact, *maps[a, b], forward=True)
        back = rows.KnowledgeRowContext(a, pairs, settings.samples, settings.seed, other=b)
        yield from rows.cross_stage_rows(back, columns, seen[b].exact, seen[a].exact, *maps[b, a], forward=False)
