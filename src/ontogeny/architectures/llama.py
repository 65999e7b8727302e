"""The Llama shape (Llama, Amber, TinyLlama): sequential blocks, RMSNorm, gated MLP, grouped key-value heads. Source: arXiv:2302.13971."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("llama",),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="mlp.down_proj",
    final_norm="model.norm",
)
