"""BLOOM: ALiBi for positions; attention and MLP modules add the stream themselves, so the last maps are read. Source: arXiv:2211.05100."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import dropout

from ontogeny.architectures import Architecture, Attend, OwnAttention


def _attention(block: nn.Module, attend: Attend) -> tuple[nn.Module, str, Any]:
    module: Any = block.get_submodule("self_attention")

    def forward(
        hidden_states: Tensor,
        residual: Tensor,
        alibi: Tensor,
        attention_mask: Tensor | None,
        layer_past: Any = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        query, key, value = module._reshape(module.query_key_value(hidden_states))
        if layer_past is not None:
            key, value = layer_past.update(key, value, module.layer_idx)
        bias = alibi.view(len(query), module.num_heads, 1, -1)
        outputs, pattern = attend(module, query, key, value, attention_mask, bias=bias)
        added = dropout(module.dense(outputs.flatten(2)), module.hidden_dropout, training=module.training)
        return residual + added, pattern

    return module, "forward", forward


architecture = Architecture(
    model_types=("bloom",),
    embed="transformer.word_embeddings",
    blocks="transformer.h",
    attn="self_attention.dense",
    heads_out="self_attention.dense",
    mlp="mlp.dense_4h_to_h",
    neurons="mlp.dense_4h_to_h",
    final_norm="transformer.ln_f",
    own_attention=OwnAttention(_attention, has_position_bias=lambda config: True),
)
