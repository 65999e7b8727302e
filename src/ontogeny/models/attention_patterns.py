"""Attention patterns of a model's forward passes: read them, or replace them before they are applied to the values.

Transformers hands queries, keys and mask of each layer to one function, which is exchanged for a while; this holds for every family that
uses that function. Keys of a group (GQA) are repeated for each of its heads.
"""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ontogeny.errors import BadInput
from ontogeny.models.model import Model


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """The attention of one layer in one forward pass."""

    layer: int
    """Counted from 1."""
    queries: Float[Tensor, "row head query d"]
    """Scaled so that attention is the softmax of q·k/√d, whatever factor the family uses."""
    keys: Float[Tensor, "row head key d"]
    """Those in the KV cache included."""
    pattern: Float[Tensor, "row head query key"]
    """In float32; rows sum to 1."""


PatternVisit = Callable[[AttentionCall], Tensor | None]
"""Returns the pattern that is used in place of the call's, or None to keep it."""

_ATTENTION_NAME = "ontogeny_patterns"
_VISITS: ContextVar[tuple[tuple[dict[nn.Module, int], PatternVisit], ...]] = ContextVar("pattern_visits", default=())


def uses_common_attention(model: Model) -> bool:
    """Whether the family computes its attention by the common function of transformers, as Bloom, Falcon and GPT-J do not."""
    forwards = [inspect.unwrap(type(module).forward) for module in model.block(1).modules()]
    return any("ALL_ATTENTION_FUNCTIONS" in getattr(f, "__code__", _attention.__code__).co_names for f in forwards)


@contextlib.contextmanager
def pattern_hooks(model: Model, visit: PatternVisit) -> Iterator[None]:
    """In every forward pass, call `visit` with the attention of each layer; contexts may be nested, the outer one acts first.

    Raises:
        BadInput: the family computes its attention in another way.
    """
    if not uses_common_attention(model):
        raise BadInput(
            f"attention patterns of {model.network.config.model_type} cannot be reached, because its attention is not the common function "
            "of transformers: choose a model of another family."
        )
    layers = {module: layer for layer in range(1, model.layers + 1) for module in model.block(layer).modules()}
    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION_NAME, _attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_ATTENTION_NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    config = model.network.config.get_text_config()
    before, token = config._attn_implementation, _VISITS.set((*_VISITS.get(), (layers, visit)))
    config._attn_implementation = _ATTENTION_NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _VISITS.reset(token)


def _attention(
    module: nn.Module,
    query: Float[Tensor, "row head query d"],
    key: Float[Tensor, "row group key d"],
    value: Float[Tensor, "row group key v"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "row query head v"], Tensor]:
    each = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(each, 1) for part in (key, value))
    d = query.shape[-1]
    scaled = query * ((d**-0.5 if scaling is None else scaling) * math.sqrt(d))
    scores = scaled @ key.transpose(2, 3) / math.sqrt(d)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[2]]
    pattern = scores.softmax(-1, dtype=torch.float32)
    for layers, visit in _VISITS.get():
        if module in layers:
            changed = visit(AttentionCall(layers[module], scaled, key, pattern))
            pattern = pattern if changed is None else changed
    pattern = pattern.to(query.dtype)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern
