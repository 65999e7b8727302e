"""Gemma: the Llama shape; embeddings times sqrt(d), heads of a width of their own. Source: arXiv:2403.08295."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("gemma",),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="mlp.down_proj",
    final_norm="model.norm",
)
