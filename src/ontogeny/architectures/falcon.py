"""Falcon: parallel attention and MLP, one key-value head (7B) or a few (40B). Source: arXiv:2311.16867."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ontogeny.architectures import Architecture, Attend, OwnAttention


def _attention(block: nn.Module, attend: Attend) -> tuple[nn.Module, str, Any]:
    """Rotated queries and keys, or ALiBi; keys are of one head, of groups, or of all heads."""
    module: Any = block.get_submodule("self_attention")

    def forward(
        hidden_states: Tensor,
        alibi: Tensor | None,
        attention_mask: Tensor,
        position_ids: Any = None,
        layer_past: Any = None,
        position_embeddings: Any = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        parts = module._split_heads(module.query_key_value(hidden_states))
        query, key, value = (part.transpose(1, 2) for part in parts)
        bias = None
        if alibi is None:
            query, key = (_rotate(part, *position_embeddings) for part in (query, key))
        else:
            # The model has added the bias to the mask already, for the kernel that its checkpoints run with.
            hidden = attention_mask <= torch.finfo(attention_mask.dtype).min / 2
            attention_mask = torch.zeros_like(attention_mask).masked_fill(hidden, torch.finfo(attention_mask.dtype).min)
            bias = alibi.view(len(query), module.num_heads, 1, -1) / math.sqrt(module.head_dim)
        if layer_past is not None:
            key, value = layer_past.update(key, value, module.layer_idx)
        outputs, pattern = attend(module, query, key, value, attention_mask, bias=bias)
        return module.dense(outputs.flatten(2)), pattern

    return module, "forward", forward


def _rotate(values: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions; the first half of a vector holds the first parts of its planes, the second half the second (arXiv:2104.09864)."""
    first, second = values.chunk(2, -1)
    return values * cosine[:, None] + torch.cat([-second, first], -1) * sine[:, None]


architecture = Architecture(
    model_types=("falcon",),
    embed="transformer.word_embeddings",
    blocks="transformer.h",
    attn="self_attention",
    heads_out="self_attention.dense",
    mlp="mlp",
    neurons="mlp.dense_4h_to_h",
    final_norm="transformer.ln_f",
    own_attention=OwnAttention(_attention, has_position_bias=lambda config: bool(config.alibi)),
)
