"""GPT-2: learned absolute positions, sequential blocks, linear maps stored transposed (Conv1D). Source: Radford et al. 2019."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("gpt2",),
    embed="transformer.wte",
    blocks="transformer.h",
    attn="attn",
    heads_out="attn.c_proj",
    mlp="mlp",
    neurons="mlp.c_proj",
    final_norm="transformer.ln_f",
)
