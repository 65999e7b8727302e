"""OLMo: the Llama shape, with layer norms that have no parameters. Source: arXiv:2402.00838."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("olmo",),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="mlp.down_proj",
    final_norm="model.norm",
)
