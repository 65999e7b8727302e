"""OLMo 2 and 3: the outputs of attention and MLP are normalised before they are added. Source: arXiv:2501.00656."""

from ontogeny.architectures import Architecture

architecture = Architecture(
    model_types=("olmo2", "olmo3"),
    embed="model.embed_tokens",
    blocks="model.layers",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mlp="mlp",
    neurons="mlp.down_proj",
    final_norm="model.norm",
    attn_added="post_attention_layernorm",
    mlp_added="post_feedforward_layernorm",
)
