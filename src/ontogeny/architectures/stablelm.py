"""StableLM 2: the Llama shape with LayerNorm and rotary positions on a part of each head. Source: arXiv:2402.17834."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("stablelm",),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="mlp.down_proj",
    final_norm="model.norm",
)
