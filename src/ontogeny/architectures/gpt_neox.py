"""GPT-NeoX (Pythia): parallel attention and MLP, rotary positions. Source: arXiv:2304.01373."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("gpt_neox",),
    embed="gpt_neox.embed_in",
    blocks="gpt_neox.layers",
    attn="attention",
    heads_out="attention.dense",
    mlp="mlp",
    neurons="mlp.dense_4h_to_h",
    final_norm="gpt_neox.final_layer_norm",
)
