"""Phi 3 and 4: the Llama shape with one map for queries, keys and values. Source: arXiv:2404.14219."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("phi3",),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="mlp.down_proj",
    final_norm="model.norm",
)
