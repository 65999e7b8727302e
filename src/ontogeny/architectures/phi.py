"""Phi 1 to 2: parallel attention and MLP behind one LayerNorm, partial rotary positions. Source: arXiv:2309.05463."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("phi",),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.dense",
    mlp="mlp",
    neurons="mlp.fc2",
    final_norm="model.final_layernorm",
)
