"""Queries and keys of every head after their rotation, so that softmax of q·k/√d is the model's own attention."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.models.attention_patterns import AttentionCall, pattern_hooks
from ontogeny.models.model import Model


@dataclass(frozen=True, eq=False)
class AttentionVectors:
    """Queries and keys of one text, with the attention that they make."""

    queries: Float[Tensor, "layer head token d"]
    """Scaled so that attention is the softmax of q·k/√d, whatever factor the family uses. With ALiBi (Bloom, some Falcons) the last
    coordinate is r in the queries and r · position in the keys, with r² = √d · slope of the head (arXiv:2108.12409)."""
    keys: Float[Tensor, "layer head token d"]
    patterns: Float[Tensor, "layer head query key"]
    """Attention of each token (rows sum to 1), after the family's mask and soft cap."""


def attention_vectors(model: Model, ids: Int[Tensor, " token"]) -> AttentionVectors:
    """Queries, keys and attention of every head for one text.

    Args:
        model: From `load_model`.
        ids: Token ids of the text, without padding.

    Raises:
        BadInput: the family has no table, and computes its attention in a way of its own.
    """
    return batch_attention_vectors(model, ids[None])[0]


def batch_attention_vectors(
    model: Model, inputs: Int[Tensor, "row token"] | Float[Tensor, "row channel height width"]
) -> list[AttentionVectors]:
    """`attention_vectors` of texts of one length, or of images, in one pass.

    Args:
        model: From `load_model`, or `load_image_model` for images, whose tokens are the class token and the patches.
        inputs: Token ids without padding, or pixels.

    Raises:
        BadInput: the family has no table, and computes its attention in a way of its own.
    """
    options: dict[str, Any] = {"use_cache": False} if model.architecture.causal else {}
    name = "pixel_values" if model.architecture.images else "input_ids"
    calls: list[AttentionCall] = []
    with torch.no_grad(), pattern_hooks(model, calls.append):
        model.body(**{name: inputs.to(model.device)}, **options)
    parts = [(call.queries, call.keys, call.pattern) for call in calls]
    queries, keys, patterns = (torch.stack(part, 1).float().cpu() for part in zip(*parts, strict=True))
    return [AttentionVectors(*row) for row in zip(queries, keys, patterns, strict=True)]
