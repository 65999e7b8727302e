"""ViT: an encoder over the patches of an image, with a class token in front. Source: arXiv:2010.11929."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("vit",),
    embed="vit.embeddings.patch_embeddings",
    blocks="vit.layers",
    attn="attention",
    heads_out="attention.o_proj",
    mlp="mlp",
    neurons="mlp.fc2",
    final_norm="vit.layernorm",
    causal=False,
    images=True,
)
