"""GPT-J: parallel attention and MLP behind one LayerNorm, rotary positions. Source: github.com/kingoflolz/mesh-transformer-jax."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("gptj",),
    embed="transformer.wte",
    blocks="transformer.h",
    attn="attn",
    heads_out="attn.out_proj",
    mlp="mlp",
    neurons="mlp.fc_out",
    final_norm="transformer.ln_f",
)
