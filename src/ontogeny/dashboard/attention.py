"""Attention panel: queries and keys of every head of a checkpoint in one plane, for texts that a reader types.

Planes of different checkpoints are aligned to that of the last one, so that a step of the slider moves points instead of mirroring them.
"""

import re
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.activations.attention_vectors import attention_vectors
from ontogeny.dashboard.attention_picture import (
    SCALES,
    AttentionReading,
    check_heads,
    draw_attention,
    head_map,
    planes_of,
    rounded,
)
from ontogeny.dashboard.checkpoint_models import CheckpointModels
from ontogeny.dashboard.selection import step_text
from ontogeny.dashboard.shown_run import ShownRun
from ontogeny.data.tokenization import encode_text
from ontogeny.errors import BadInput, unknown_name
from ontogeny.measurements.token_scores import token_texts
from ontogeny.models.model import Model

MOST_TOKENS, MOST_TEXTS, MOST_POINTS = 128, 16, 512
"""Tokens of a text, texts, and tokens of all texts."""


def attention_of_text(
    shown: ShownRun, models: CheckpointModels, text: str, stage: str, step: str, scale: str = "norm"
) -> dict[str, Any]:
    """Tokens, planes of queries and keys, attention and scores of all heads, layers from 1.

    Args:
        text: One text, or several with empty lines between them, whose queries and keys are in one space.
        scale: `norm` for one mean norm of queries and keys, `correlation` for distances that follow the dot products best.

    Raises:
        BadInput: a text is empty or too long, there are too many, the model has more than 256 heads or an attention of its own, or it
            cannot be read.
    """
    reading = _reading(models, text, stage, step, scale)
    return draw_attention(reading, _aligned_planes(shown, models, reading, text, stage, step, scale), scale)


def map_of_head(
    shown: ShownRun,
    models: CheckpointModels,
    text: str,
    stage: str,
    step: str,
    layer: int,
    head: int,
    scale: str = "norm",
) -> dict[str, Any]:
    """t-SNE of the queries and keys of one head, started from its plane; other requests are answered meanwhile.

    Args:
        text: As `attention_of_text`.
        layer: From 1.
        head: From 0.
        scale: As `attention_of_text`.

    Raises:
        BadInput: the model has no such head, or the text cannot be read.
    """
    reading = _reading(models, text, stage, step, scale)
    layers, heads = reading.queries.shape[:2]
    if not (1 <= layer <= layers and 0 <= head < heads):
        raise BadInput(
            f"the model has {layers} blocks of {heads} heads, and no head.{layer}.{head}: choose another one."
        )
    results, key = models.results_of(models.at(stage, step)), ("map", text, layer, head, scale)
    points = results.known(key)
    if points is None:
        planes = _aligned_planes(shown, models, reading, text, stage, step, scale)
        points = rounded(head_map(reading, planes, layer - 1, head, scale))
        results.keep(key, points)
    return {"points": points}


def _reading(models: CheckpointModels, text: str, stage: str, step: str, scale: str) -> AttentionReading:
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    return models.computed(models.at(stage, step), ("attention", text), lambda model: read_typed_texts(model, text))


def _aligned_planes(
    shown: ShownRun, models: CheckpointModels, reading: AttentionReading, text: str, stage: str, step: str, scale: str
) -> Float[Tensor, "layer head point 2"]:
    """Planes of all heads, turned onto those of the last checkpoint."""
    last = shown.describe()["checkpoints"][-1]
    end = models.at(last["stage"], step_text(last["step"]))
    if end == models.at(stage, step):
        return planes_of(reading, None, scale)
    return planes_of(
        reading, models.computed(end, ("attention", text), lambda model: read_typed_texts(model, text)), scale
    )


def read_typed_texts(model: Model, text: str) -> AttentionReading:
    """Queries and keys of one text, or of several with empty lines between them.

    Raises:
        BadInput: as `attention_of_text`.
    """
    texts = [part.strip("\n") for part in re.split(r"\n[ \t]*\n", text) if part.strip()]
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise BadInput(
            f"`text` must hold 1 to {MOST_TEXTS} texts with an empty line between two, got {len(texts)}: change it."
        )
    check_heads(model)
    encodings, most = [encode_text(model.tokenizer, one) for one in texts], min(MOST_TOKENS, model.context)
    for count in (len(encoding.ids) for encoding in encodings):
        if not 1 < count <= most:
            raise BadInput(
                f"`text` must have 2 to {most} tokens for a picture of its attention, got {count}: change it."
            )
    if (count := sum(len(encoding.ids) for encoding in encodings)) > MOST_POINTS:
        raise BadInput(
            f"the texts in `text` must have at most {MOST_POINTS} tokens together, got {count}: remove some."
        )
    ids = [torch.as_tensor(encoding.ids) for encoding in encodings]
    names = [list(token_texts(model, encoding)) for encoding in encodings]
    return AttentionReading(names, [attention_vectors(model, own) for own in ids], ids)
