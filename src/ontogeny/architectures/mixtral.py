"""Mixtral: the Mistral shape with a mixture of experts in each block. Source: arXiv:2401.04088."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("mixtral",),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="",
    final_norm="model.norm",
    router="mlp.gate",
)
