"""Queries and keys of every head after their rotation, so that softmax of q·k/√d is the model's own attention."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.models.attention_patterns import AttentionCall, pattern_hooks
from ontogeny.models.model import Model


@dataclass(frozen=True, eq=False)
class AttentionVectors:
    """Queries and keys of one text, with the attention that they make."""

    queries: Float[Tensor, "layer head token d"]
    """Scaled so that attention is the softmax of q·k/√d, whatever factor the family uses."""
    keys: Float[Tensor, "layer head token d"]
    patterns: Float[Tensor, "layer head query key"]
    """Attention of each token (rows sum to 1), after the family's mask and soft cap."""


def attention_vectors(model: Model, ids: Int[Tensor, " token"]) -> AttentionVectors:
    """Queries, keys and attention of every head for one text.

    Args:
        model: From `load_model`.
        ids: Token ids of the text, without padding.

    Raises:
        BadInput: the family computes its attention in another way, as Bloom, Falcon and GPT-J do.
    """
    options = {"use_cache": False} if model.architecture.causal else {}
    calls: list[AttentionCall] = []
    with torch.no_grad(), pattern_hooks(model, calls.append):
        model.body(input_ids=ids[None].to(model.device), **options)
    parts = [(call.queries[0], call.keys[0], call.pattern[0]) for call in calls]
    queries, keys, patterns = (torch.stack(part).float().cpu() for part in zip(*parts, strict=True))
    return AttentionVectors(queries, keys, patterns)
