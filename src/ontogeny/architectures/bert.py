"""BERT: an encoder with full attention and the residual stream normalised after each part. Source: arXiv:1810.04805."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("bert",),
    embed="bert.embeddings.word_embeddings",
    blocks="bert.encoder.layer",
    attn="attention.output.dense",
    heads_out="attention.output.dense",
    mlp="output.dense",
    neurons="output.dense",
    final_norm="",
    causal=False,
)
