"""Qwen 2, 2.5 and 3: the Llama shape; in 3 queries and keys are normalised, heads need not fill the width. Source: arXiv:2505.09388."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("qwen2", "qwen3"),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="mlp.down_proj",
    final_norm="model.norm",
)
