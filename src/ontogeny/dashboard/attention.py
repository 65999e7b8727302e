"""Attention panel: queries and keys of every head of a checkpoint in one plane, for a text that a reader types.

Planes of different checkpoints are aligned to that of the last one, so that a step of the slider moves points instead of mirroring them.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.activations.attention_geometry import HEAD_SCORES, align_planes, head_scores, neighbour_map, plane_of
from ontogeny.activations.attention_vectors import AttentionVectors, attention_vectors
from ontogeny.dashboard.checkpoint_models import CheckpointModels
from ontogeny.dashboard.selection import step_text
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.data.tokenization import encode_text
from ontogeny.errors import BadInput
from ontogeny.measurements.token_scores import token_texts
from ontogeny.models.model import Model

MOST_TOKENS, MOST_HEADS = 128, 256


def attention_of_text(shown: ShownRun, models: CheckpointModels, text: str, stage: str, step: str) -> dict[str, Any]:
    """Tokens, planes of queries and keys, attention and scores of all heads, layers from 1.

    Raises:
        BadInput: the text is empty or longer than 128 tokens, the model has more than 256 heads or an attention of its own, or it cannot be
            read.
    """
    tokens, vectors, ids = models.computed(
        models.at(stage, step), ("attention", text), lambda model: _read(model, text)
    )
    planes = _aligned_planes(shown, models, vectors, text, stage, step)
    layers, heads = planes.shape[:2]
    return {
        "tokens": tokens,
        "layers": layers,
        "heads": heads,
        "planes": _rounded(planes),
        "norms": _rounded(torch.cat([vectors.queries, vectors.keys], -2).norm(dim=-1)),
        "patterns": _rounded(vectors.patterns),
        "scores": _rounded(head_scores(vectors, ids)),
        "score_names": list(HEAD_SCORES),
    }


def map_of_head(
    shown: ShownRun, models: CheckpointModels, text: str, stage: str, step: str, layer: int, head: int
) -> dict[str, Any]:
    """t-SNE of the queries and keys of one head, started from its plane.

    Args:
        layer: From 1.
        head: From 0.

    Raises:
        BadInput: the model has no such head, or the text cannot be read.
    """
    _, vectors, _ = models.computed(models.at(stage, step), ("attention", text), lambda model: _read(model, text))
    layers, heads = vectors.queries.shape[:2]
    if not (1 <= layer <= layers and 0 <= head < heads):
        raise BadInput(
            f"the model has {layers} blocks of {heads} heads, and no head.{layer}.{head}: choose another one."
        )
    queries, keys = vectors.queries[layer - 1, head], vectors.keys[layer - 1, head]
    start = _aligned_planes(shown, models, vectors, text, stage, step)[layer - 1, head]
    points = models.computed(
        models.at(stage, step), ("map", text, layer, head), lambda _: _rounded(neighbour_map(queries, keys, start))
    )
    return {"points": points}


def _aligned_planes(
    shown: ShownRun, models: CheckpointModels, vectors: AttentionVectors, text: str, stage: str, step: str
) -> Float[Tensor, "layer head point 2"]:
    """Planes of all heads, turned onto those of the last checkpoint."""
    planes = plane_of(vectors.queries, vectors.keys)
    last = shown.describe()["checkpoints"][-1]
    end = models.at(last["stage"], step_text(last["step"]))
    if end != models.at(stage, step):
        _, reference, _ = models.computed(end, ("attention", text), lambda model: _read(model, text))
        if reference.queries.shape == vectors.queries.shape:  # else another tokenizer or another size
            planes = align_planes(planes, plane_of(reference.queries, reference.keys))
    return planes


def _read(model: Model, text: str) -> tuple[list[str], AttentionVectors, Tensor]:
    encoding = encode_text(model.tokenizer, text)
    count = len(encoding.ids)
    if not text.strip() or not 1 < count <= min(MOST_TOKENS, model.context):
        raise BadInput(
            f"`text` must have 2 to {min(MOST_TOKENS, model.context)} tokens for a picture of its attention, got {count}: change it."
        )
    if model.layers * model.heads > MOST_HEADS:
        raise BadInput(
            f"a picture of attention must have at most {MOST_HEADS} heads, got {model.layers * model.heads}: "
            "read them in Python with `attention_vectors`."
        )
    ids = torch.as_tensor(encoding.ids)
    return list(token_texts(model, encoding)), attention_vectors(model, ids), ids


def _rounded(values: Tensor) -> Any:
    """Nested lists with three digits after the point; NaN as None."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if math.isnan(value) else round(value, 3)

    return plain(values.tolist())
