"""Geometry of one model: sampled rows of its embedding and unembedding, their neighbours, weights and dimensions, and hidden states."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.embeddings.dimension import local_dimensions
from ontogeny.embeddings.hidden_states import TokenPlaces, hidden_states
from ontogeny.embeddings.local_linear import lle_weights
from ontogeny.embeddings.matrices import EMBEDDING_SPACES, EmbeddingSpace, embedding_rows, is_tied, unembedding_rows
from ontogeny.embeddings.neighbours import nearest_neighbours
from ontogeny.embeddings.similarity import FEWEST_TOKENS
from ontogeny.embeddings.tokens import ComparedTokens, usable_rows
from ontogeny.errors import BadInput
from ontogeny.models.model import Model

_MOST_DIMENSION_NEIGHBOURS = 1200
TIED = "tied: the unembedding is the embedding"
_NO_HEAD = "the model has no unembedding"


@dataclass(frozen=True)
class GeometrySettings:
    """How much of a geometry is read.

    Args:
        tokens: Tokens of which all pairs are compared.
        local_tokens: Tokens whose neighbours among the whole vocabulary are sought.
        neighbours: Neighbours of a locally linear embedding.
        dimension_neighbours: Neighbours of a local dimension; 0 for a tenth of the vocabulary, at most 1,200.
        hidden_tokens: Tokens whose hidden states are compared; 0 for none.
        nulls: Draws of each null.
        least_count: Tokens that occur less often in the texts are left out.
    """

    tokens: int = 5000
    local_tokens: int = 500
    neighbours: int = 10
    dimension_neighbours: int = 0
    hidden_tokens: int = 500
    nulls: int = 20
    least_count: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("tokens", FEWEST_TOKENS),
            ("local_tokens", FEWEST_TOKENS),
            ("neighbours", 2),
            ("nulls", 5),
            ("least_count", 1),
        ):
            if getattr(self, name) < least:
                raise BadInput(f"`{name}` must be at least {least}, got {getattr(self, name)}: choose a larger number.")
        for name, least in (("dimension_neighbours", 3), ("hidden_tokens", FEWEST_TOKENS)):
            if getattr(self, name) and getattr(self, name) < least:
                raise BadInput(
                    f"`{name}` must be 0 or at least {least}, got {getattr(self, name)}: choose a larger number."
                )

    def neighbours_of_dimension(self, vocabulary: int) -> int:
        """Number of neighbours whose principal components are counted."""
        return self.dimension_neighbours or min(_MOST_DIMENSION_NEIGHBOURS, max(vocabulary // 10, 2 * self.neighbours))

    def check_vocabulary(self, vocabulary: int) -> None:
        """Raise BadInput if there are fewer tokens than neighbours."""
        most = max(self.neighbours, self.neighbours_of_dimension(vocabulary))
        if vocabulary <= max(most, FEWEST_TOKENS):
            raise BadInput(
                f"the models must share more tokens than the {most} neighbours that are sought, got {vocabulary}: choose fewer "
                "`neighbours` and `dimension_neighbours`, or give more texts."
            )


@dataclass(frozen=True, eq=False)
class SpaceGeometry:
    """Geometry of the rows of one matrix. The first tokens are compared in pairs, the first of these with their neighbours."""

    rows: Float[Tensor, "token d"]
    usable: Bool[Tensor, " token"]
    """Whether the row is finite and not zero."""
    near: Int[Tensor, "query k"]
    """Neighbours among the whole vocabulary; -1 where the row is not usable."""
    weights: Float[Tensor, "query k"]
    dimensions: Int[Tensor, " query"]
    """0 where the row is not usable."""
    distances: Float[Tensor, "query 2"]
    """To the two nearest neighbours."""


@dataclass(frozen=True, eq=False)
class ModelGeometry:
    """Geometry of one model."""

    spaces: Mapping[EmbeddingSpace, SpaceGeometry]
    missing: Mapping[EmbeddingSpace, str]
    """Why a space is not there."""
    hidden: Float[Tensor, "layer place d"] | None


OnSpace = Callable[[EmbeddingSpace, Float[Tensor, "token d"], SpaceGeometry], None]


def whole_spaces(model: Model, tokens: ComparedTokens) -> Iterator[tuple[EmbeddingSpace, Float[Tensor, "token d"]]]:
    """The rows of all tokens, one matrix after the other; the unembedding only where it is a matrix of its own."""
    for space in EMBEDDING_SPACES:
        if space == "embedding":
            yield space, embedding_rows(model, tokens.ids)
        elif missing_reason(model) is None:
            yield space, unembedding_rows(model, tokens.ids)


def missing_reason(model: Model) -> str | None:
    """Why a model has no unembedding of its own; None if it has one."""
    if model.network.get_output_embeddings() is None:
        return _NO_HEAD
    return TIED if is_tied(model) else None


def model_geometry(
    model: Model,
    tokens: ComparedTokens,
    places: TokenPlaces | None,
    settings: GeometrySettings,
    *,
    on_space: OnSpace = lambda space, whole, geometry: None,
) -> ModelGeometry:
    """Read the geometry of a model for tokens that its tokenizer shares with others.

    Args:
        places: Where hidden states are read; None for none.
        on_space: Called with each matrix while all its rows are in memory.

    Raises:
        BadInput: there are fewer usable tokens than neighbours.
    """
    spaces: dict[EmbeddingSpace, SpaceGeometry] = {}
    for space, whole in whole_spaces(model, tokens):
        spaces[space] = space_geometry(whole, settings)
        on_space(space, whole, spaces[space])
    reason = missing_reason(model)
    hidden = hidden_states(model, places) if places is not None and len(places.tokens) else None
    return ModelGeometry(spaces, {"unembedding": reason} if reason else {}, hidden)


def space_geometry(whole: Float[Tensor, "vocabulary d"], settings: GeometrySettings) -> SpaceGeometry:
    """The sampled rows of a matrix, and the neighbours, weights and dimensions of the first of them.

    Args:
        whole: Rows of all tokens that are compared, in random order.

    Raises:
        BadInput: there are fewer usable rows than neighbours.
    """
    usable = usable_rows(whole)
    kept = usable.nonzero()[:, 0]
    settings.check_vocabulary(len(kept))
    k, wide = settings.neighbours, settings.neighbours_of_dimension(len(kept))
    rows, count = whole[kept], min(settings.local_tokens, len(whole))
    inside = kept < count
    near, distances = nearest_neighbours(rows, inside.nonzero()[:, 0], max(k, wide))
    places = kept[inside]

    def spread(values: Tensor, fill: float) -> Tensor:
        out = values.new_full((count, *values.shape[1:]), fill)
        out[places] = values
        return out

    weights = lle_weights(rows, inside.nonzero()[:, 0], near[:, :k])
    return SpaceGeometry(
        whole[: settings.tokens],
        usable[: settings.tokens],
        spread(kept[near[:, :k]], -1),
        spread(weights, 0.0),
        spread(local_dimensions(rows, near[:, :wide]), 0),
        spread(distances[:, :2], torch.nan),
    )
