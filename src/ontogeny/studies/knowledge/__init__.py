"""Study: where each stage stores facts, and what later stages keep (causal tracing, arXiv:2202.05262, 2504.02904).

A clean and a corrupt prompt differ in one place and have different right answers. Patching the clean run's state into the corrupt run,
layer × token, gives a map of each stage. Maps of two stages are correlated and subtracted, and states are exchanged between stages, both
ways: clean states against corrupt ones, as a foreign state may erase what is there and so move the answer half-way by itself.
"""

import itertools
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from ontogeny.data.verdict_question import verdict_question_for
from ontogeny.errors import BadInput, unknown_name
from ontogeny.jobs.compare.inputs import StageSizes, StudyInputs, text_tokens
from ontogeny.models.model import Model, tokenizer_fingerprint
from ontogeny.patching import map_rows as rows
from ontogeny.patching.map_statistics import PatchMap
from ontogeny.patching.patch_maps import (
    CleanCorruptStates,
    PairLayout,
    PatchModes,
    add_peak_directions,
    compute_patch_maps,
    layout_pairs,
)
from ontogeny.patching.prompt_pairs import MinedPairs, mine_pairs, realign_pairs
from ontogeny.records import Record

TITLE = "Knowledge"
INPUTS = ("statements", "question", "pairing")
StagePairSelection = Literal["auto", "all", "ends", "none"]
_MAX_STAGES_ALL_PAIRS = 4
"""Up to this many stages, `auto` compares all pairs; with more, neighbours and the two ends."""
_SMALL_STEP = 0.01
"""Share of a patch's change that is added when its direction is compared with random ones. At full length a random vector erases the
state, which alone moves the answer half-way."""
_Crossed = dict[tuple[str, str], tuple[PatchMap, PatchMap]]
"""Maps of (source, target): the source's clean, and its corrupt states in the target's corrupt runs."""


@dataclass(frozen=True)
class KnowledgeSettings:
    noise: int = 3
    """Draws of the noise that corrupts the subject's embeddings; 0 skips this mode."""
    noise_scale: float = 3.0
    """Standard deviation of the noise, in units of that of the embeddings."""
    attribution: bool = True
    """Also run attribution patching, and correlate it with exact patching."""
    cross: StagePairSelection = "auto"
    """Stages that exchange their states."""
    binned: bool = False
    """Also give the paper's correlation of binned maps, which inflates the agreement."""
    draws: int = 16
    """Random directions per pair and cell; 0 skips this control."""
    samples: int = 1000
    """Bootstrap resamples of the pairs, and permutations."""
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cross not in get_args(StagePairSelection):
            raise unknown_name("choice of stages", self.cross, get_args(StagePairSelection))
        if min(self.noise, self.draws) < 0 or self.samples < 100 or self.batch < 1:
            raise BadInput(
                f"noise and draws must be counts from 0, samples from 100, batch from 1, got {self}: correct them."
            )


def settings(inputs: StudyInputs) -> KnowledgeSettings:
    """Default settings with the comparison's seed."""
    return KnowledgeSettings(seed=inputs.seed)


def digest(inputs: StudyInputs) -> list[Any]:
    """Inputs for the unit key. Keys of runs made before there was a pairing hold none, and used `auto`."""
    first = replace(inputs, statements=inputs.statements[:1])
    return first.digest(name for name in INPUTS if name != "pairing" or inputs.pairing != "auto")


def cost(inputs: StudyInputs, sizes: StageSizes) -> float:
    """Estimated tokens that pass through the models."""
    texts = [e.text for e in inputs.statements[0].examples]
    tokens = text_tokens(texts) / len(texts)
    # Of 50 pairs, every token of every block from there on, in several modes and across stages.
    return 50 * tokens**2 / 2 * sizes.blocks / 2 * (sizes.stages * 4 + sizes.stages**2)


def run(stages: Mapping[str, Model], inputs: StudyInputs, settings: KnowledgeSettings) -> Iterator[Record]:
    """Mine pairs of prompts from the first set of statements, and patch them in all stages.

    Raises:
        BadInput: no pairs align, a prompt exceeds a context, or a model is not causal.
    """
    tokenizer = next(iter(stages.values())).tokenizer
    question = inputs.question or verdict_question_for(tokenizer)
    pairs = mine_pairs(inputs.statements[0], tokenizer, pairing=inputs.pairing, question=question, seed=inputs.seed)
    return patch_stages(stages, pairs, settings)


@dataclass(frozen=True, eq=False)
class PatchedStage:
    """Results of a stage that are kept after its model is dropped."""

    shape: tuple[int, int]
    """Blocks and width."""
    tokenizer: str
    layout: PairLayout
    exact: PatchMap
    states: CleanCorruptStates = field(repr=False)


def patch_stages(stages: Mapping[str, Model], pairs: MinedPairs, settings: KnowledgeSettings) -> Iterator[Record]:
    """Rows of every stage, then of every pair of stages.

    Each stage is loaded once, and again if its corrupt runs wait for a later stage's states.

    Raises:
        BadInput: no pairs, a prompt that exceeds a context, or a model that is not causal.
    """
    if not len(pairs):
        raise BadInput(f"there are no pairs of {pairs.concept} to patch ({pairs.note}): give more statements.")
    names = list(stages)
    crossed = _stage_pairs(names, settings.cross)
    patched: dict[str, PatchedStage] = {}
    maps: _Crossed = {}
    for name in names:
        earlier = [a for a, b in crossed if b == name]
        stage = yield from _stage_rows(stages[name], name, pairs, settings, earlier, patched, maps)
        if stage is not None:
            patched[name] = stage
    for name in reversed(names):
        sources = {b: patched[b].states for a, b in crossed if a == name and _why_incompatible(patched, a, b) is None}
        if sources:
            modes, layout = PatchModes(patch=False), patched[name].layout
            results = compute_patch_maps(stages[name], layout, modes, sources=sources, seed=settings.seed)
            maps |= {(b, name): (results.maps[f"cross:{b}"], results.maps[f"other:{b}"]) for b in sources}
    for a, b in dict.fromkeys([*crossed, *_stage_pairs(names, "auto")]):
        yield from _stage_pair_rows(a, b, pairs, settings, patched, maps, (a, b) in crossed)


def _stage_pairs(names: list[str], how: StagePairSelection) -> list[tuple[str, str]]:
    """Earlier and later stage of each pair."""
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
    patched: Mapping[str, PatchedStage],
    maps: _Crossed,
) -> Generator[Record, None, PatchedStage | None]:
    first, tokenizer = next(iter(patched.values()), None), tokenizer_fingerprint(model)
    own = pairs if first is None or first.tokenizer == tokenizer else realign_pairs(pairs, model.tokenizer)
    about = rows.MapRowContext(name, own, settings.samples, settings.seed)
    if not len(own):
        yield about.missing("patch_effect", f"none of the {len(pairs)} pairs aligns under this stage's tokenizer")
        return None
    if (longest := max(len(pair.clean) for pair in own.pairs)) > model.context:
        raise BadInput(f"a prompt of {longest} tokens exceeds the context of {model.context} of {name}: lower `shots`.")
    layout, shape = layout_pairs(own.pairs, batch=settings.batch), (model.layers, model.d)
    sources = {a: patched[a].states for a in earlier if a in patched and _differ(patched[a], shape, tokenizer) is None}
    modes = PatchModes(True, settings.noise, settings.noise_scale, settings.attribution)
    results = compute_patch_maps(model, layout, modes, sources=sources, seed=settings.seed)
    maps |= {(a, name): (results.maps[f"cross:{a}"], results.maps[f"other:{a}"]) for a in sources}
    exact, single = results.maps["patch"], {m: of for m, of in results.maps.items() if ":" not in m}
    yield from rows.stage_map_rows(about, layout.columns, single, results.cost)
    if settings.draws and (peaks := rows.peak_layers(about, layout.columns, exact)):
        for length in (1.0, _SMALL_STEP):
            effects = add_peak_directions(
                model, layout, peaks, length=length, draws=settings.draws, seed=settings.seed, cost=results.cost
            )
            yield from rows.peak_direction_rows(about, layout.columns, exact, effects, peaks, length)
    return PatchedStage(shape, tokenizer, layout, exact, results.states)


def _why_incompatible(patched: Mapping[str, PatchedStage], a: str, b: str) -> str | None:
    """Why two stages cannot exchange states."""
    if a not in patched or b not in patched:
        return f"{a if a not in patched else b} has no map"
    return _differ(patched[a], patched[b].shape, patched[b].tokenizer)


def _differ(stage: PatchedStage, shape: tuple[int, int], tokenizer: str) -> str | None:
    (layers, width), (others, other_width) = stage.shape, shape
    if stage.shape != shape:
        return f"{layers} blocks of width {width} and {others} of {other_width}: the states of one do not fit the other"
    return None if stage.tokenizer == tokenizer else "other tokenizers: the same tokens are not at the same places"


def _stage_pair_rows(
    a: str,
    b: str,
    pairs: MinedPairs,
    settings: KnowledgeSettings,
    patched: Mapping[str, PatchedStage],
    maps: _Crossed,
    crossed: bool,
) -> Iterator[Record]:
    about = rows.MapRowContext(b, pairs, settings.samples, settings.seed, other=a)
    if (why := _why_incompatible(patched, a, b)) is not None:
        yield about.missing("map_correlation", why)
        if crossed:
            yield about.missing("knowledge_transfer", why)
        return
    columns, earlier, later = patched[b].layout.columns, patched[a].exact, patched[b].exact
    yield from rows.map_difference_rows(about, columns, earlier, later, binned_too=settings.binned)
    if crossed:
        yield from rows.cross_stage_rows(about, columns, earlier, later, *maps[a, b], forward=True)
        back = rows.MapRowContext(a, pairs, settings.samples, settings.seed, other=b)
        yield from rows.cross_stage_rows(back, columns, later, earlier, *maps[b, a], forward=False)
