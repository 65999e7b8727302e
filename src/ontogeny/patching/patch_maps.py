"""Patching maps of one model on all pairs: exact patching, noise, attribution patching, and patches with other stages' states."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.models.model import Model
from ontogeny.models.onednn import packed_linears
from ontogeny.patching.activation_patching import (
    BaselineRun,
    PatchingCost,
    PatchingPrompts,
    Prefix,
    common_prefix_length,
    patch,
    run_baseline,
    run_prefix,
    why_inexact,
)
from ontogeny.patching.attribution_patching import attribution_patch
from ontogeny.patching.map_statistics import PatchMap
from ontogeny.patching.noise import noise_embeddings, noise_scale, norm_matched_noise
from ontogeny.patching.prompt_pairs import PromptPair

_TOKEN_ROLES = ("subject", "subject_last", "between", "object", "after", "last")
"""Roles of patched tokens. Tokens before the first difference are the same in both runs."""


@dataclass(frozen=True, eq=False)
class CleanCorruptStates:
    """Residual streams of both runs, one tensor per chunk."""

    clean: list[Float[Tensor, "layer row token d"]]
    corrupt: list[Float[Tensor, "layer row token d"]]


@dataclass(frozen=True, eq=False)
class PairChunk:
    """Pairs of one length that run together."""

    members: list[int]
    clean: PatchingPrompts
    corrupt: PatchingPrompts
    where: Bool[Tensor, "row token"]
    """Tokens from the first that differs on."""
    differs: Bool[Tensor, "row token"]


@dataclass(frozen=True, eq=False)
class PairLayout:
    """Shared prefix, chunks and map columns of all pairs."""

    shared: tuple[int, ...]
    """Tokens that all prompts begin with."""
    chunks: tuple[PairChunk, ...]
    columns: tuple[str, ...]
    members: tuple[Mapping[str, list[int]], ...]
    """Tokens of each column for each pair, counted after the shared prefix."""


@dataclass(frozen=True, eq=False)
class StagePatchMaps:
    """Maps of one model."""

    maps: Mapping[str, PatchMap]
    """By mode: `patch`, `noise`, `attribution`, and per source stage `cross:STAGE` (its clean states in the corrupt run) and
    `other:STAGE` (its corrupt states: the effect of being another model)."""
    states: CleanCorruptStates
    cost: PatchingCost


@dataclass(frozen=True)
class PatchModes:
    """Modes to run beside the patches with other stages' states."""

    patch: bool = True
    noise: int = 0
    """Draws of noise."""
    scale: float = 3.0
    """Standard deviation of the noise, in units of that of the embeddings it covers."""
    attribution: bool = False


def layout_pairs(pairs: Sequence[PromptPair], *, batch: int = 32) -> PairLayout:
    """Chunks of at most `batch` pairs of one length, and one map column per token or role."""
    shared = common_prefix_length([ids for pair in pairs for ids in (pair.clean, pair.corrupt)])
    by_length: dict[int, list[int]] = defaultdict(list)
    # In ascending order of the first difference, so that a pass needs a leading part of the rows only.
    for i in sorted(range(len(pairs)), key=lambda i: _differs(pairs[i]).index(True)):
        by_length[len(pairs[i].clean)].append(i)
    parts = [part[at : at + batch] for _, part in sorted(by_length.items()) for at in range(0, len(part), batch)]
    columns, members = _columns(pairs, shared)
    return PairLayout(pairs[0].clean[:shared], tuple(_chunk(pairs, part, shared) for part in parts), columns, members)


def _differs(pair: PromptPair) -> list[bool]:
    return [x != y for x, y in zip(pair.clean, pair.corrupt, strict=True)]


def _chunk(pairs: Sequence[PromptPair], part: list[int], shared: int) -> PairChunk:
    clean, corrupt = (torch.tensor([getattr(pairs[i], side)[shared:] for i in part]) for side in ("clean", "corrupt"))
    right, wrong = (torch.tensor([getattr(pairs[i], side) for i in part]) for side in ("right", "wrong"))
    prompts = PatchingPrompts(clean, right, wrong), PatchingPrompts(corrupt, right, wrong)
    differs = clean != corrupt
    return PairChunk(part, *prompts, differs.int().cummax(1).values.bool(), differs)


def _columns(pairs: Sequence[PromptPair], shared: int) -> tuple[tuple[str, ...], tuple[Mapping[str, list[int]], ...]]:
    """One column per token if all pairs have one pattern, else one per role."""
    single = len({tuple(role for role in pair.roles if role != "before") for pair in pairs}) == 1
    names: dict[str, None] = {}
    members = []
    for pair in pairs:
        tokens: dict[str, list[int]] = defaultdict(list)
        for token, role in enumerate(pair.roles):
            if role != "before":
                nth = pair.roles[: token + 1].count(role)
                name = f"{role}.{nth}" if single and pair.roles.count(role) > 1 else role
                tokens[name].append(token - shared)
                names[name] = None
        members.append(dict(tokens))
    return tuple(names if single else (role for role in _TOKEN_ROLES if role in names)), tuple(members)


@torch.no_grad()
def compute_patch_maps(
    model: Model,
    layout: PairLayout,
    modes: PatchModes,
    *,
    sources: Mapping[str, CleanCorruptStates] | None = None,
    seed: int = 0,
) -> StagePatchMaps:
    """All maps of one model; `sources` are other stages' states, patched into this model's corrupt runs."""
    cost = PatchingCost()
    results: dict[str, dict[int, tuple[Tensor, Tensor, Tensor]]] = defaultdict(dict)
    states = CleanCorruptStates([], [])
    with packed_linears(model.body):
        start = verified_prefix(model, layout, cost)
        for number, chunk in enumerate(layout.chunks):
            clean, corrupt = _run_clean_and_corrupt(model, chunk, start, cost)
            where = chunk.where.expand(model.layers + 1, -1, -1)
            patched = {}
            if modes.patch:
                patched["patch"] = patch(model, corrupt, clean.streams, where, cost), corrupt.odds
            for name, source in (sources or {}).items():
                for kind, streams in (("cross", source.clean), ("other", source.corrupt)):
                    patched[f"{kind}:{name}"] = patch(model, corrupt, streams[number], where, cost), corrupt.odds
            if modes.noise:
                patched["noise"] = _noise(model, chunk, clean, start, where, modes, seed, cost)
            for mode, (odds, floor) in patched.items():
                results[mode][number] = odds.cpu(), floor.cpu(), clean.odds.cpu()
            states.clean.append(clean.streams.cpu())
            states.corrupt.append(corrupt.streams.cpu())
    # Packed linear layers have no gradient.
    for number, chunk in enumerate(layout.chunks if modes.attribution else ()):
        clean, corrupt = _run_clean_and_corrupt(model, chunk, start, cost)
        odds = attribution_patch(model, corrupt, clean.streams, cost)
        odds = torch.where(chunk.where.to(model.device), odds, torch.nan)
        results["attribution"][number] = odds.cpu(), corrupt.odds.cpu(), clean.odds.cpu()
    maps = {mode: _columns_map(layout, parts, model.layers, own=":" not in mode) for mode, parts in results.items()}
    return StagePatchMaps(maps, states, cost)


def verified_prefix(model: Model, layout: PairLayout, cost: PatchingCost) -> Prefix:
    """The shared prefix with its KV cache; without one if patching with the cache is inexact for this model."""
    ids, chunk = torch.tensor(layout.shared, dtype=torch.long), layout.chunks[0]
    start = run_prefix(model, ids, cost)
    a, b = (PatchingPrompts(of.ids[:1], of.right[:1], of.wrong[:1]) for of in (chunk.clean, chunk.corrupt))
    single = PairChunk(chunk.members[:1], a, b, chunk.where[:1], chunk.differs[:1])
    clean, corrupt = _run_clean_and_corrupt(model, single, start, cost)
    cost.needed -= 2 * chunk.clean.ids.shape[1] * model.layers
    cost.note = why_inexact(model, corrupt, clean.streams, int(chunk.where[0].int().argmax()), cost)
    return start if cost.note is None else run_prefix(model, ids, cost, whole=True)


def _run_clean_and_corrupt(
    model: Model, chunk: PairChunk, start: Prefix, cost: PatchingCost
) -> tuple[BaselineRun, BaselineRun]:
    """Both runs in one forward pass."""
    a, b = chunk.clean, chunk.corrupt
    prompts = PatchingPrompts(*(torch.cat([x, y]) for x, y in ((a.ids, b.ids), (a.right, b.right), (a.wrong, b.wrong))))
    both = run_baseline(model, prompts, start, cost)
    return both.half(True), both.half(False)


def _noise(
    model: Model,
    chunk: PairChunk,
    clean: BaselineRun,
    start: Prefix,
    where: Tensor,
    modes: PatchModes,
    seed: int,
    cost: PatchingCost,
) -> tuple[Tensor, Tensor]:
    """Log odds of each restored cell and of the noised run, means over the draws."""
    sigma = noise_scale(clean.streams[0], chunk.differs, modes.scale)
    draws = []
    for draw in range(modes.noise):
        noisy = noise_embeddings(model, chunk.clean, start, chunk.differs, sigma, cost, seeds=_seeds(chunk, seed, draw))
        draws.append((patch(model, noisy, clean.streams, where, cost), noisy.odds))
    return torch.stack([odds for odds, _ in draws]).mean(0), torch.stack([floor for _, floor in draws]).mean(0)


def _seeds(chunk: PairChunk, seed: int, draw: int) -> list[int]:
    # Salted: torch.randn with the bare seed gives the same numbers everywhere.
    return [417_000_000 + 1_000_000 * seed + 10_000 * draw + pair for pair in chunk.members]


def _columns_map(
    layout: PairLayout, parts: Mapping[int, tuple[Tensor, Tensor, Tensor]], layers: int, *, own: bool
) -> PatchMap:
    """Means over the tokens of each column. With another stage's states (not `own`) no cell is fixed by construction."""
    pairs = len(layout.members)
    odds = torch.full((pairs, layers + 1, len(layout.columns)), torch.nan)
    floor, ceiling = torch.full((pairs,), torch.nan), torch.full((pairs,), torch.nan)
    free = torch.zeros(layers + 1, len(layout.columns), dtype=torch.bool)
    for number, (values, low, high) in parts.items():
        chunk = layout.chunks[number]
        for row, pair in enumerate(chunk.members):
            floor[pair], ceiling[pair] = low[row], high[row]
            for column, name in enumerate(layout.columns):
                if tokens := layout.members[pair].get(name):
                    odds[pair, :, column] = values[:, row, tokens].mean(1)
                    free[1:layers, column] = True
                    # Patching the only embedding that differs gives the other run.
                    differs = bool(chunk.differs[row, tokens].any())
                    free[0, column] |= differs and (not own or int(chunk.differs[row].sum()) > 1)
                    free[layers, column] |= not own and chunk.where.shape[1] - 1 in tokens
    return PatchMap(odds, floor, ceiling, free)


@dataclass(frozen=True, eq=False)
class DirectionEffects:
    """Changes of the log odds by vectors added at one layer per column: the patch's own change, and random ones of its norm."""

    along: Float[Tensor, "pair column"]
    random: Float[Tensor, "draw pair column"]


@torch.no_grad()
def add_peak_directions(
    model: Model,
    layout: PairLayout,
    layers: Mapping[str, int],
    *,
    length: float,
    draws: int,
    seed: int,
    cost: PatchingCost,
) -> DirectionEffects:
    """Add a share (`length`) of each patch's change to the state, and random vectors of its norm, at the given layer of each column."""
    along = torch.full((1, len(layout.members), len(layout.columns)), torch.nan)
    random = along.repeat(draws, 1, 1)
    with packed_linears(model.body):
        start = verified_prefix(model, layout, cost)
        for chunk in layout.chunks:
            clean, corrupt = _run_clean_and_corrupt(model, chunk, start, cost)
            where = torch.zeros(corrupt.streams.shape[:3], dtype=torch.bool)
            for row, pair in enumerate(chunk.members):
                for name, layer in layers.items():
                    where[layer, row, layout.members[pair].get(name, [])] = True
            change = length * (clean.streams - corrupt.streams)
            nulls = (norm_matched_noise(change, seeds=_seeds(chunk, seed, draw)) for draw in range(draws))
            for into, by in zip((along[0], *random), itertools.chain((change,), nulls), strict=True):
                odds = patch(model, corrupt, corrupt.streams + by, where, cost) - corrupt.odds[:, None]
                for row, pair in enumerate(chunk.members):
                    for column, name in enumerate(layout.columns):
                        if name in layers and (tokens := layout.members[pair].get(name)):
                            into[pair, column] = odds[layers[name], row, tokens].mean().cpu()
    return DirectionEffects(along[0], random)
