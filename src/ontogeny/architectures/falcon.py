"""Falcon: parallel attention and MLP, one key-value head (7B) or a few (40B). Source: arXiv:2311.16867."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("falcon",),
    embed="transformer.word_embeddings",
    blocks="transformer.h",
    attn="self_attention",
    heads_out="self_attention.dense",
    mlp="mlp",
    neurons="mlp.dense_4h_to_h",
    final_norm="transformer.ln_f",
)
