"""Geometry of token embeddings and hidden states: global and local similarity of two models, and intrinsic dimension (arXiv:2503.21073)."""

from ontogeny.embeddings.coherence import are_related, neighbour_coherence
from ontogeny.embeddings.dimension import IntrinsicDimension, local_dimensions, two_nn_dimension
from ontogeny.embeddings.local_linear import lle_weights, neighbour_overlap, weight_cosines
from ontogeny.embeddings.matrices import EmbeddingSpace, embedding_rows, is_tied, unembedding_rows
from ontogeny.embeddings.model_geometry import (
    GeometrySettings,
    ModelGeometry,
    SpaceGeometry,
    model_geometry,
    space_geometry,
)
from ontogeny.embeddings.neighbours import nearest_neighbours
from ontogeny.embeddings.nulls import frequency_matched_order, gaussian_cloud, shuffled_order
from ontogeny.embeddings.own_rows import own_geometry_rows
from ontogeny.embeddings.pair_rows import GeometryComparison, compare_geometries
from ontogeny.embeddings.similarity import GlobalSimilarity, global_similarity
from ontogeny.embeddings.tokens import ComparedTokens, choose_tokens

__all__ = [
    "ComparedTokens",
    "EmbeddingSpace",
    "GeometryComparison",
    "GeometrySettings",
    "GlobalSimilarity",
    "IntrinsicDimension",
    "ModelGeometry",
    "SpaceGeometry",
    "are_related",
    "choose_tokens",
    "compare_geometries",
    "embedding_rows",
    "frequency_matched_order",
    "gaussian_cloud",
    "global_similarity",
    "is_tied",
    "lle_weights",
    "local_dimensions",
    "model_geometry",
    "nearest_neighbours",
    "neighbour_coherence",
    "neighbour_overlap",
    "own_geometry_rows",
    "shuffled_order",
    "space_geometry",
    "two_nn_dimension",
    "unembedding_rows",
    "weight_cosines",
]
