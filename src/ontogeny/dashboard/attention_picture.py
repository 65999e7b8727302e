"""Picture of attention as JSON: points of all heads, the attention that is worth a line, and scores of heads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.attention_geometry import (
    HEAD_SCORES,
    align_planes,
    correlation_ratio,
    head_scores,
    neighbour_map,
    norm_ratio,
    plane_of,
)
from ontogeny.activations.attention_vectors import AttentionVectors
from ontogeny.errors import BadInput
from ontogeny.models.model import Model

MOST_HEADS = 256
SCALES = ("norm", "correlation")
LEAST_ATTENTION = 0.04
"""Attention below it has no line."""


@dataclass(frozen=True, eq=False)
class AttentionReading:
    """Queries and keys of some texts or images at one checkpoint."""

    names: Sequence[Sequence[str]]
    """The tokens of each text, or the patches of each image."""
    vectors: Sequence[AttentionVectors]
    ids: Sequence[Int[Tensor, " token"]]
    """Equal where two tokens of a text are equal."""

    @property
    def queries(self) -> Float[Tensor, "layer head token d"]:
        return torch.cat([one.queries for one in self.vectors], 2)

    @property
    def keys(self) -> Float[Tensor, "layer head token d"]:
        return torch.cat([one.keys for one in self.vectors], 2)

    def ratio(self, scale: str) -> Float[Tensor, "layer head"]:
        """The factor of `joint_space` of a scale."""
        return correlation_ratio(self.vectors) if scale == "correlation" else norm_ratio(self.queries, self.keys)


def check_heads(model: Model) -> None:
    """Raise BadInput if the model has too many heads for a picture."""
    if (count := model.layers * model.heads) > MOST_HEADS:
        raise BadInput(
            f"a picture of attention must have at most {MOST_HEADS} heads, got {count}: read them in Python with `attention_vectors`."
        )


def planes_of(
    reading: AttentionReading, reference: AttentionReading | None, scale: str
) -> Float[Tensor, "layer head point 2"]:
    """Planes of all heads, turned onto those of another checkpoint; another tokenizer or size turns nothing."""
    planes = plane_of(reading.queries, reading.keys, reading.ratio(scale))
    if reference is None or reference.queries.shape != reading.queries.shape:
        return planes
    return align_planes(planes, plane_of(reference.queries, reference.keys, reference.ratio(scale)))


def head_map(
    reading: AttentionReading, planes: Float[Tensor, "layer head point 2"], layer: int, head: int, scale: str
) -> Float[Tensor, "point 2"]:
    """t-SNE of one head, started from its plane; both numbers from 0."""
    ratio = reading.ratio(scale)[layer, head]
    return neighbour_map(reading.queries[layer, head], reading.keys[layer, head], planes[layer, head], ratio)


def draw_attention(
    reading: AttentionReading, planes: Float[Tensor, "layer head point 2"], scale: str = "norm"
) -> dict[str, Any]:
    """The picture: tokens of all texts one after the other, with the number of each text's, planes, norms, links and scores of heads.

    A link of a head is query, key and attention, both counted from the first token of all texts.
    """
    layers, heads = planes.shape[:2]
    return {
        "tokens": [name for names in reading.names for name in names],
        "counts": [len(names) for names in reading.names],
        "layers": layers,
        "heads": heads,
        "scale": scale,
        "planes": rounded(planes),
        "norms": rounded(torch.cat([reading.queries, reading.keys], -2).norm(dim=-1)),
        "links": [[_links(reading, layer, head) for head in range(heads)] for layer in range(layers)],
        "scores": rounded(head_scores(reading.vectors, reading.ids)),
        "score_names": list(HEAD_SCORES),
    }


def _links(reading: AttentionReading, layer: int, head: int) -> list[list[float]]:
    links, start = list[list[float]](), 0
    for one in reading.vectors:
        pattern = one.patterns[layer, head]
        places = (pattern >= LEAST_ATTENTION).nonzero()
        weights = pattern[places[:, 0], places[:, 1]].tolist()
        links += [[start + q, start + k, round(w, 3)] for (q, k), w in zip(places.tolist(), weights, strict=True)]
        start += len(pattern)
    return links


def rounded(values: Tensor) -> Any:
    """Nested lists with three digits after the point; NaN as None."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if math.isnan(value) else round(value, 3)

    return plain(values.tolist())
