"""Queries and keys of every head after their rotation, so that softmax of q·k/√d is the model's own attention.

Transformers hands queries, keys and mask of each layer to one function, which is exchanged for a pass; this holds for every family that
uses that function. Keys of a group (GQA) are repeated for each of its heads.
"""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ontogeny.errors import BadInput
from ontogeny.models.model import Model

_ATTENTION_NAME = "ontogeny_recorded"
_SEEN: ContextVar[list[tuple[Tensor, Tensor, Tensor]]] = ContextVar("seen_attention")


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
    with torch.no_grad(), _recorded(model) as seen:
        model.body(input_ids=ids[None].to(model.device), **options)
    if len(seen) != model.layers:
        raise BadInput(
            f"queries and keys of {model.network.config.model_type} cannot be read, because its attention is not the common function "
            "of transformers: choose a model of another family."
        )
    queries, keys, patterns = (torch.stack(part).float().cpu() for part in zip(*seen, strict=True))
    return AttentionVectors(queries, keys, patterns)


@contextlib.contextmanager
def _recorded(model: Model) -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION_NAME, _attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_ATTENTION_NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    config, seen = model.network.config.get_text_config(), list[tuple[Tensor, Tensor, Tensor]]()
    before, token = config._attn_implementation, _SEEN.set(seen)
    config._attn_implementation = _ATTENTION_NAME
    try:
        yield seen
    finally:
        config._attn_implementation = before
        _SEEN.reset(token)


def _attention(
    module: nn.Module,
    query: Float[Tensor, "1 head token d"],
    key: Float[Tensor, "1 group token d"],
    value: Float[Tensor, "1 group token v"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "1 token head v"], Tensor]:
    each = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(each, 1) for part in (key, value))
    d = query.shape[-1]
    scaled = query * ((d**-0.5 if scaling is None else scaling) * math.sqrt(d))
    scores = scaled @ key.transpose(2, 3) / math.sqrt(d)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[2]]
    pattern = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    _SEEN.get().append((scaled[0], key[0], pattern[0]))
    return (pattern @ value).transpose(1, 2).contiguous(), pattern
