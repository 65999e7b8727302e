"""One model, all pairs: the map of patching in each mode, in one visit; its clean states are kept for other stages' cross-patching."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
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
from ontogeny.patching.noise import noise_embeddings, noise_scale, norm_matched_noise
from ontogeny.studies.knowledge.map_statistics import PatchMap
from ontogeny.studies.knowledge.prompt_pairs import PromptPair

_TOKEN_ROLES = ("subject", "subject_last", "between", "object", "after", "last")
"""What stands before the first difference is not patched: it is the same in both runs."""


@dataclass(frozen=True, eq=False)
class CleanCorruptStates:
    """The streams of both runs, one tensor a chunk."""

    clean: list[Float[Tensor, "layer row token d"]]
    corrupt: list[Float[Tensor, "layer row token d"]]


@dataclass(frozen=True, eq=False)
class PairChunk:
    """Pairs of one length that run together."""

    members: list[int]
    clean: PatchingPrompts
    corrupt: PatchingPrompts
    where: Bool[Tensor, "row token"]
    """From the first token that differs on."""
    differs: Bool[Tensor, "row token"]


@dataclass(frozen=True, eq=False)
class PairLayout:
    """How pairs lie: what they all begin with, which run together, which tokens make a column of the map."""

    shared: tuple[int, ...]
    chunks: tuple[PairChunk, ...]
    columns: tuple[str, ...]
    members: tuple[Mapping[str, list[int]], ...]
    """Of each pair, the tokens of each column, counted behind the common start."""


@dataclass(frozen=True, eq=False)
class StagePatchMaps:
    maps: Mapping[str, PatchMap]
    """By mode: `patch`, `noise`, `attribution`, and for each source `cross:STAGE` (its clean states in the corrupt run) and
    `other:STAGE` (its corrupt ones: what its being another model does by itself)."""
    states: CleanCorruptStates
    cost: PatchingCost


@dataclass(frozen=True)
class PatchModes:
    patch: bool = True
    noise: int = 0
    """Draws of noise."""
    scale: float = 3.0
    """Of the noise, in standard deviations of the embeddings of the tokens it covers."""
    attribution: bool = False


def layout_pairs(pairs: Sequence[PromptPair], *, batch: int = 32) -> PairLayout:
    shared = common_prefix_length([ids for pair in pairs for ids in (pair.clean, pair.corrupt)])
    by_length: dict[int, list[int]] = defaultdict(list)
    # Those that differ early stand last: the rows that a pass needs are then the first ones.
    for i in sorted(range(len(pairs)), key=lambda i: _first(pairs[i])):
        by_length[len(pairs[i].clean)].append(i)
    parts = [part[at : at + batch] for _, part in sorted(by_length.items()) for at in range(0, len(part), batch)]
    columns, members = _columns(pairs, shared)
    return PairLayout(pairs[0].clean[:shared], tuple(_chunk(pairs, part, shared) for part in parts), columns, members)


def _first(pair: PromptPair) -> int:
    return next(i for i, (x, y) in enumerate(zip(pair.clean, pair.corrupt, strict=True)) if x != y)


def _chunk(pairs: Sequence[PromptPair], part: list[int], shared: int) -> PairChunk:
    clean, corrupt = (torch.tensor([getattr(pairs[i], side)[shared:] for i in part]) for side in ("clean", "corrupt"))
    right, wrong = (torch.tensor([getattr(pairs[i], side) for i in part]) for side in ("right", "wrong"))
    differs = clean != corrupt
    return PairChunk(
        part,
        PatchingPrompts(clean, right, wrong),
        PatchingPrompts(corrupt, right, wrong),
        differs.int().cummax(1).values.bool(),
        differs,
    )


def _columns(pairs: Sequence[PromptPair], shared: int) -> tuple[tuple[str, ...], tuple[Mapping[str, list[int]], ...]]:
    """One column a token where all pairs have one pattern, else one a role."""
    bare = {tuple(role for role in pair.roles if role != "before") for pair in pairs}
    single = len(bare) == 1
    names: dict[str, None] = {}
    members = []
    for pair in pairs:
        mine: dict[str, list[int]] = defaultdict(list)
        for token, role in enumerate(pair.roles):
            if role != "before":
                nth = pair.roles[: token + 1].count(role)
                name = f"{role}.{nth}" if single and pair.roles.count(role) > 1 else role
                mine[name].append(token - shared)
                names[name] = None
        members.append(dict(mine))
    if not single:
        return tuple(role for role in _TOKEN_ROLES if role in names), tuple(members)
    return tuple(names), tuple(members)


@torch.no_grad()
def compute_patch_maps(
    model: Model,
    layout: PairLayout,
    modes: PatchModes,
    *,
    sources: Mapping[str, CleanCorruptStates] | None = None,
    seed: int = 0,
    on_chunk: Callable[[], None] | None = None,
) -> StagePatchMaps:
    """All maps of one model; `sources` are other stages' states, put into this model's corrupt runs."""
    cost = PatchingCost()
    kept: dict[str, dict[int, tuple[Tensor, Tensor, Tensor]]] = defaultdict(dict)
    states = CleanCorruptStates([], [])
    with packed_linears(model.body):
        start = verified_prefix(model, layout, cost)
        for number, chunk in enumerate(layout.chunks):
            clean, corrupt = _run_clean_and_corrupt(model, chunk, start, cost)
            where = chunk.where.expand(model.layers + 1, -1, -1)
            found = {}
            if modes.patch:
                found["patch"] = patch(model, corrupt, clean.streams, where, cost), corrupt.odds
            for name, given in (sources or {}).items():
                for kind, put in (("cross", given.clean), ("other", given.corrupt)):
                    found[f"{kind}:{name}"] = patch(model, corrupt, put[number], where, cost), corrupt.odds
            if modes.noise:
                found["noise"] = _noise(model, chunk, clean, start, where, modes, seed, cost)
            for mode, (odds, floor) in found.items():
                kept[mode][number] = odds.cpu(), floor.cpu(), clean.odds.cpu()
            states.clean.append(clean.streams.cpu())
            states.corrupt.append(corrupt.streams.cpu())
            if on_chunk:
                on_chunk()
    if modes.attribution:
        # Packed products have no gradient.
        for number, chunk in enumerate(layout.chunks):
            clean, corrupt = _run_clean_and_corrupt(model, chunk, start, cost)
            odds = torch.where(
                chunk.where.to(model.device), attribution_patch(model, corrupt, clean.streams, cost), torch.nan
            )
            kept["attribution"][number] = odds.cpu(), corrupt.odds.cpu(), clean.odds.cpu()
    made = {mode: _columns_map(layout, parts, model.layers, ours=":" not in mode) for mode, parts in kept.items()}
    return StagePatchMaps(made, states, cost)


def verified_prefix(model: Model, layout: PairLayout, cost: PatchingCost) -> Prefix:
    """The common start; for whole passes where this model does not go on behind keys and values that stand."""
    ids = torch.tensor(layout.shared, dtype=torch.long)
    chunk = layout.chunks[0]
    start = run_prefix(model, ids, cost)
    clean, corrupt = _run_clean_and_corrupt(
        model,
        PairChunk(
            chunk.members[:1],
            _single_prompt(chunk.clean),
            _single_prompt(chunk.corrupt),
            chunk.where[:1],
            chunk.differs[:1],
        ),
        start,
        cost,
    )
    cost.needed -= 2 * chunk.clean.ids.shape[1] * model.layers
    cost.note = why_inexact(model, corrupt, clean.streams, int(chunk.where[0].int().argmax()), cost)
    return start if cost.note is None else run_prefix(model, ids, cost, whole=True)


def _single_prompt(asked: PatchingPrompts) -> PatchingPrompts:
    return PatchingPrompts(asked.ids[:1], asked.right[:1], asked.wrong[:1])


def _run_clean_and_corrupt(
    model: Model, chunk: PairChunk, start: Prefix, cost: PatchingCost
) -> tuple[BaselineRun, BaselineRun]:
    """Clean and corrupt in one pass."""
    a, b = chunk.clean, chunk.corrupt
    asked = PatchingPrompts(*(torch.cat([x, y]) for x, y in ((a.ids, b.ids), (a.right, b.right), (a.wrong, b.wrong))))
    both = run_baseline(model, asked, start, cost)
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
    """Mean over the draws: log odds of each restored cell, and of the noised run."""
    sigma = noise_scale(clean.streams[0], chunk.differs, modes.scale)
    draws = []
    for draw in range(modes.noise):
        noisy = noise_embeddings(model, chunk.clean, start, chunk.differs, sigma, cost, seeds=_seeds(chunk, seed, draw))
        draws.append((patch(model, noisy, clean.streams, where, cost), noisy.odds))
    return torch.stack([odds for odds, _ in draws]).mean(0), torch.stack([floor for _, floor in draws]).mean(0)


def _seeds(chunk: PairChunk, seed: int, draw: int) -> list[int]:
    # Salted: torch.randn with a bare seed gives the same numbers to whoever calls it.
    return [417_000_000 + 1_000_000 * seed + 10_000 * draw + pair for pair in chunk.members]


def _columns_map(
    layout: PairLayout, parts: Mapping[int, tuple[Tensor, Tensor, Tensor]], layers: int, *, ours: bool
) -> PatchMap:
    """Mean over the tokens of each column; what another stage's embeddings and last states do here is nowhere given beforehand."""
    pairs = len(layout.members)
    odds = torch.full((pairs, layers + 1, len(layout.columns)), torch.nan)
    floor, ceiling = torch.full((pairs,), torch.nan), torch.full((pairs,), torch.nan)
    free = torch.zeros(layers + 1, len(layout.columns), dtype=torch.bool)
    for number, (found, low, high) in parts.items():
        chunk = layout.chunks[number]
        for row, pair in enumerate(chunk.members):
            floor[pair], ceiling[pair] = low[row], high[row]
            for column, name in enumerate(layout.columns):
                if tokens := layout.members[pair].get(name):
                    odds[pair, :, column] = found[:, row, tokens].mean(1)
                    free[1:layers, column] = True
                    # A single embedding that differs is all that differs: patching it is the other run.
                    differs = bool(chunk.differs[row, tokens].any())
                    free[0, column] |= differs and (not ours or int(chunk.differs[row].sum()) > 1)
                    free[layers, column] |= not ours and chunk.where.shape[1] - 1 in tokens
    return PatchMap(odds, floor, ceiling, free)


@dataclass(frozen=True, eq=False)
class DirectionEffects:
    """Change of the log odds by vectors added at one layer a column: the patch's own, and random ones of its length."""

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
    """Add so much of each patch's change to what stands, and random vectors as long; `layers` says where, for each column."""
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

            def moved(by: Tensor) -> Tensor:
                return patch(model, corrupt, corrupt.streams + by, where, cost) - corrupt.odds[:, None]  # noqa: B023

            change = length * (clean.streams - corrupt.streams)
            _expand_to_tokens(along[0], moved(change), layout, chunk, layers)
            for draw in range(draws):
                by = norm_matched_noise(change, seeds=_seeds(chunk, seed, draw))
                _expand_to_tokens(random[draw], moved(by), layout, chunk, layers)
    return DirectionEffects(along[0], random)


def _expand_to_tokens(
    into: Float[Tensor, "pair column"], moved: Tensor, layout: PairLayout, chunk: PairChunk, layers: Mapping[str, int]
) -> None:
    for row, pair in enumerate(chunk.members):
        for column, name in enumerate(layout.columns):
            if name in layers and (tokens := layout.members[pair].get(name)):
                into[pair, column] = moved[layers[name], row, tokens].mean().cpu()
