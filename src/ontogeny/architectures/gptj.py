"""GPT-J: parallel attention and MLP behind one LayerNorm, rotary positions. Source: github.com/kingoflolz/mesh-transformer-jax."""

from typing import Any

from torch import Tensor, nn

from ontogeny.architectures import Architecture, Attend, OwnAttention


def _attention(block: nn.Module, attend: Attend) -> tuple[nn.Module, str, Any]:
    """Scores are computed in float32; queries and keys are rotated before."""
    module: Any = block.get_submodule("attn")

    def attn(query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, pattern = attend(module, query.float(), key.float(), value, attention_mask)
        return outputs.transpose(1, 2), pattern

    return module, "_attn", attn


architecture = Architecture(
    model_types=("gptj",),
    embed="transformer.wte",
    blocks="transformer.h",
    attn="attn",
    heads_out="attn.out_proj",
    mlp="mlp",
    neurons="mlp.fc_out",
    final_norm="transformer.ln_f",
    own_attention=OwnAttention(_attention),
)
