"""OPT: learned positions that start at 2, ReLU, and no separate MLP module. Source: arXiv:2205.01068."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("opt",),
    embed="model.decoder.embed_tokens",
    blocks="model.decoder.layers",
    attn="self_attn",
    heads_out="self_attn.out_proj",
    mlp="fc2",
    neurons="fc2",
    final_norm="model.decoder.final_layer_norm",
    flat_mlp=True,
)
