"""Gemma 2 and 3, text only: norms before and after attention and MLP, whose outputs are added. Source: arXiv:2408.00118."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("gemma2", "gemma3_text"),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="mlp.down_proj",
    final_norm="model.norm",
    attn_added="post_attention_layernorm",
    mlp_added="post_feedforward_layernorm",
)
