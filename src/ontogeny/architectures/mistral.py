"""Mistral and Ministral: the Llama shape, with a window that each token looks back through. Source: arXiv:2310.06825."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("mistral", "ministral"),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="mlp.down_proj",
    final_norm="model.norm",
)
