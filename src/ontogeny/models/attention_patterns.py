"""Attention patterns of a model's forward passes: read them, or replace them before they are applied to the values.

Transformers hands queries, keys and mask of each layer to one function, which is exchanged for a while. The table of a family that does not
use that function names the method to exchange instead. Keys of a group (GQA) are repeated for each of its heads.
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
    """Scaled so that attention is the softmax of q·k/√d, whatever factor the family uses. Of a bias by position (ALiBi) both have one
    more coordinate."""
    keys: Float[Tensor, "row head key d"]
    """Those in the KV cache included."""
    pattern: Float[Tensor, "row head query key"]
    """In float32; rows sum to 1."""


PatternVisit = Callable[[AttentionCall], Tensor | None]
"""Returns the pattern that is used in place of the call's, or None to keep it."""

_ATTENTION_NAME = "ontogeny_patterns"
_VISITS: ContextVar[tuple[tuple[dict[nn.Module, int], PatternVisit], ...]] = ContextVar("pattern_visits", default=())


def uses_common_attention(model: Model) -> bool:
    """Whether the family computes its attention by the common function of transformers."""
    forwards = [inspect.unwrap(type(module).forward) for module in model.block(1).modules()]
    return any("ALL_ATTENTION_FUNCTIONS" in getattr(f, "__code__", _attention.__code__).co_names for f in forwards)


@contextlib.contextmanager
def pattern_hooks(model: Model, visit: PatternVisit) -> Iterator[None]:
    """In every forward pass, call `visit` with the attention of each layer; contexts may be nested, the outer one acts first.

    Raises:
        BadInput: the family computes its attention in another way, which its table does not name.
    """
    own = model.architecture.own_attention
    if own is None and not uses_common_attention(model):
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
        with contextlib.ExitStack() as methods:
            if own is not None:
                for layer in range(1, model.layers + 1):
                    methods.enter_context(_replaced_method(*own.method(model.block(layer), _attention)))
            yield
    finally:
        config._attn_implementation = before
        _VISITS.reset(token)


@contextlib.contextmanager
def _replaced_method(module: nn.Module, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Replace a method of one module; afterwards restore the previous one (that of the class, or that of an outer context)."""
    previous = module.__dict__.get(name)
    setattr(module, name, method)
    try:
        yield
    finally:
        delattr(module, name)
        if previous is not None:
            setattr(module, name, previous)


def _attention(
    module: nn.Module,
    query: Float[Tensor, "row head query d"],
    key: Float[Tensor, "row group key d"],
    value: Float[Tensor, "row group key v"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    bias: Float[Tensor, "row head 1 key"] | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "row query head v"], Tensor]:
    each = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(each, 1) for part in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if bias is not None:
        query, key = _with_position_bias(query.float() * scale, key.float(), bias.float())
        scale = 1.0
    d = query.shape[-1]
    scaled = query * (scale * math.sqrt(d))
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
    pattern = pattern.to(value.dtype)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern


def _with_position_bias(
    query: Float[Tensor, "row head query d"],
    key: Float[Tensor, "row head key d"],
    bias: Float[Tensor, "row head 1 key"],
) -> tuple[Float[Tensor, "row head query e"], Float[Tensor, "row head key e"]]:
    """Queries and keys with one more coordinate whose product is the bias.

    ALiBi adds slope · position to the scores (arXiv:2108.12409). It becomes r in the scaled queries and r · position in the keys, with
    r² = √d · slope, so that neither outweighs the other; the product is the bias as the model rounds it. In float32, since a bias of many
    positions is far above the other products.
    """
    steps = bias.diff().clamp_min(0)
    slopes = (
        torch.where(steps > 0, steps, math.inf).amin((0, 2, 3))
        if bias.shape[-1] > 1
        else bias.new_full(bias.shape[1:2], math.inf)
    )
    slopes = torch.where(slopes.isfinite(), slopes, 1.0)[:, None, None]  # without a second position any factor will do
    each = (slopes / math.sqrt(query.shape[-1] + 1)).sqrt()
    return (
        torch.cat([query, each.expand(*query.shape[:3], 1)], -1),
        torch.cat([key, bias.transpose(2, 3) / each], -1),
    )
