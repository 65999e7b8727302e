"""BLOOM: ALiBi for positions; attention and MLP modules add the stream themselves, so the last maps are read. Source: arXiv:2211.05100."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("bloom",),
    embed="transformer.word_embeddings",
    blocks="transformer.h",
    attn="self_attention.dense",
    heads_out="self_attention.dense",
    mlp="mlp.dense_4h_to_h",
    neurons="mlp.dense_4h_to_h",
    final_norm="transformer.ln_f",
)
