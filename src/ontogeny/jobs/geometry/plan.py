"""Plan of a geometry job: the tokens that all models share, the checkpoints to read, and those that each is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.embeddings.hidden_states import TokenPlaces, token_places
from ontogeny.embeddings.model_geometry import GeometrySettings
from ontogeny.embeddings.similarity import WORKING_BYTES
from ontogeny.embeddings.tokens import ComparedTokens, check_shared_tokens, choose_tokens, ordinary_tokens
from ontogeny.errors import BadInput
from ontogeny.jobs import resumable
from ontogeny.jobs.inputs import as_lineage
from ontogeny.lineage import Checkpoint, Lineage, fetch_checkpoint
from ontogeny.models.loading import ModelOptions, open_tokenizer, read_config
from ontogeny.storage.failures import Failure
from ontogeny.storage.files import content_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ontogeny.jobs.inputs import LineageSource

_GEOMETRY_VERSION = 1


@dataclass(frozen=True)
class Place:
    """A checkpoint of one of the models."""

    model: int
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Visit:
    """A checkpoint, with the others that it is compared with and how they stand to it: last, previous, stage_start or model."""

    place: Place
    partners: tuple[tuple[str, Place], ...]
    unit: str


@dataclass(frozen=True, eq=False)
class GeometryPlan:
    """All that is read and compared, known before a model is loaded."""

    lineages: tuple[Lineage, ...]
    names: tuple[str, ...]
    """Distinct names of the models."""
    tokens: ComparedTokens
    places: TokenPlaces | None
    settings: GeometrySettings
    visits: tuple[Visit, ...]
    sizes: Mapping[Place, int]
    """Bytes of the weights of each checkpoint."""
    failures: tuple[Failure, ...]

    @property
    def comparisons(self) -> int:
        """Pairs of checkpoints that are compared."""
        return sum(len(visit.partners) for visit in self.visits)

    @property
    def working_bytes(self) -> int:
        """Memory beside one loaded model: both matrices of the widest model, the samples that are kept, and blocks of pairs."""
        width = max((_width(place.checkpoint) for place in self.sizes), default=0)
        kept = 2 * self.settings.tokens + 64 * self.settings.hidden_tokens
        return WORKING_BYTES + 4 * width * (2 * len(self.tokens) + kept * self.cache_size)

    @property
    def cache_size(self) -> int:
        """Checkpoints whose samples are kept: of each model the last one, the one before, and the one at work."""
        return 3 * len(self.lineages) + 1


def plan_geometry(
    sources: "Sequence[LineageSource]",
    texts: Sequence[str] = (),
    settings: GeometrySettings | None = None,
    *,
    model: ModelOptions | None = None,
) -> GeometryPlan:
    """Plan a comparison of models, and of the checkpoints of each.

    Args:
        sources: Lineages, repositories, folders or lineage.toml files of models that share a tokenizer.
        texts: Of the language that the models were trained on, for the frequencies of tokens and for hidden states.

    Raises:
        BadInput: no model, one twice, other tokenizers, too few tokens, or no checkpoint that can be read.
    """
    settings, options = settings or GeometrySettings(), model or ModelOptions()
    if not sources:
        raise BadInput("`sources` must name at least one model, got none: give a folder or repository.")
    lineages = tuple(as_lineage(source, allow_pickle=options.allow_pickle) for source in sources)
    places = [[Place(i, c) for c in lineage.checkpoints] for i, lineage in enumerate(lineages)]
    where = [(p.checkpoint.hub_place) for own in places for p in own]
    if len(where) > len(set(where)):
        twice = next(place for place in where if where.count(place) > 1)
        raise BadInput(f"each model must be named once, got {twice[0]} twice: remove one.")
    if sum(map(len, places)) < 2:
        raise BadInput(
            "there must be two checkpoints to compare, got one: name another model, or a lineage with more `steps`."
        )
    names = _distinct_names(lineages)
    tokenizer = _shared_tokenizer(lineages, names, options)
    tokens = choose_tokens(tokenizer, texts, least_count=settings.least_count, seed=settings.seed)
    settings.check_vocabulary(len(tokens))
    hidden = settings.hidden_tokens
    read_at = token_places(tokenizer, tokens, texts, most=hidden) if hidden else None
    identities: dict[Place, resumable.WeightIdentity] = {}
    failures: list[Failure] = []
    for own, lineage in zip(places, lineages, strict=True):
        readable, broken = resumable.readable_checkpoints(
            lineage, allow_pickle=options.allow_pickle, tokenizer=options.tokenizer
        )
        identities |= {place: readable[place.checkpoint] for place in own if place.checkpoint in readable}
        failures += broken
    digest = content_digest([tokens.ids.tolist(), list(texts), asdict(settings), list(names)])
    visits = []
    for place, partners in _comparisons(lineages, set(identities)):
        key = [[kind, p.model, p.checkpoint.stage, p.checkpoint.step, identities[p].whole] for kind, p in partners]
        here = [place.model, place.checkpoint.stage, place.checkpoint.step, identities[place].whole]
        visits.append(Visit(place, partners, "geometry-" + content_digest([_GEOMETRY_VERSION, digest, here, key])))
    sizes = {place: identity.bytes for place, identity in identities.items()}
    return GeometryPlan(lineages, names, tokens, read_at, settings, tuple(visits), sizes, tuple(failures))


def _shared_tokenizer(
    lineages: Sequence[Lineage], names: Sequence[str], options: ModelOptions
) -> "PreTrainedTokenizerBase":
    """The tokenizer of the first model, whose tokens all others have under the same ids."""
    shared = None
    for lineage, name in zip(lineages, names, strict=True):
        folder = fetch_checkpoint(lineage.checkpoints[-1], allow_pickle=options.allow_pickle)
        tokenizer = open_tokenizer(options.tokenizer_for(folder) or folder)
        if shared is None:
            shared = tokenizer
        else:
            check_shared_tokens(ordinary_tokens(shared), ordinary_tokens(tokenizer), (names[0], name))
    assert shared is not None
    return shared


def _comparisons(
    lineages: Sequence[Lineage], readable: set[Place]
) -> list[tuple[Place, tuple[tuple[str, Place], ...]]]:
    """Each checkpoint with its partners, moment by moment over all models, so that those of one moment are in memory together."""
    own = [[Place(i, c) for c in line.checkpoints if Place(i, c) in readable] for i, line in enumerate(lineages)]
    at: list[dict[tuple[str, int | None], Place]] = [
        {(p.checkpoint.stage, p.checkpoint.step): p for p in line if p.checkpoint.step is not None} for line in own
    ]
    rank = {name: place for line in reversed(lineages) for place, name in enumerate(line.parents)}
    comparisons = []
    for line, lineage in zip(own, lineages, strict=True):
        for place in line:
            c = place.checkpoint
            inside = [p for p in line if p.checkpoint.stage == c.stage]
            parent = lineage.stage(c.stage).parent
            above = [p for p in line if p.checkpoint.stage == parent]
            before = inside[: inside.index(place)] or above
            partners = [("last", line[-1])] if place != line[-1] else []
            partners += [("previous", before[-1])] if before else []
            if place == inside[-1] and (above or len(inside) > 1):
                partners.append(("stage_start", above[-1] if above else inside[0]))
            for other in range(place.model + 1, len(lineages)):
                match = at[other].get((c.stage, c.step)) if place != line[-1] else own[other][-1]
                partners += [("model", match)] if match else []
            comparisons.append((place, tuple(partners)))
    return sorted(comparisons, key=lambda pair: _moment(pair[0], rank))


def _moment(place: Place, rank: Mapping[str, int]) -> tuple[int, bool, int, int]:
    c = place.checkpoint
    return rank[c.stage], c.step is None, c.step or 0, place.model


def _distinct_names(lineages: Sequence[Lineage]) -> tuple[str, ...]:
    """The name of each lineage; where two are alike, with the folders that tell them apart."""
    names = [line.name for line in lineages]
    for depth in range(1, 12):
        twice = {name for name in names if names.count(name) > 1}
        if not twice:
            break
        for i, line in enumerate(lineages):
            if names[i] in twice:
                parts = Path(line.checkpoints[-1].source).absolute().parts
                names[i] = f"{line.name} ({'/'.join(parts[-1 - depth :])})"
    return tuple(names)


def _width(checkpoint: Checkpoint) -> int:
    if not checkpoint.is_local:
        return 0
    return int(read_config(Path(checkpoint.source)).get_text_config().hidden_size)
