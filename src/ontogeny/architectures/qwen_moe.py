"""Qwen 1.5, 2 and 3 with a mixture of experts; some blocks may be dense, and in 2 a shared expert is added. Source: arXiv:2505.09388."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("qwen2_moe", "qwen3_moe"),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="",
    final_norm="model.norm",
    router="mlp.gate",
)
