"""OLMoE: the Llama shape with a mixture of experts in each block, queries and keys normalised. Source: arXiv:2409.02060."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("olmoe",),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="",
    final_norm="model.norm",
    router="mlp.gate",
)
