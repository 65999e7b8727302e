"""A one-block decoder with attention that is linear, without softmax, as in arXiv:2506.13688: small enough to train in seconds."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class LinearAttentionDecoder(nn.Module):
    """Embedding, one pre-norm block with one head, and a read-out.

    `attention` holds the scores of the last call, `states` the normed output.

    Args:
        vocabulary: Number of tokens.
        context: Maximum number of tokens.
        width: Width of the stream.
    """

    def __init__(self, vocabulary: int, context: int, width: int) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.norm_attn, self.norm_mlp, self.norm_out = (nn.LayerNorm(width) for _ in range(3))
        self.attn, self.attn_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.unembed = nn.Linear(width, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
        self.attention: Tensor = torch.empty(0)
        self.states: Tensor = torch.empty(0)

    def forward(
        self, ids: Int[Tensor, "row token"], scale: Float[Tensor, "token token"] | None = None
    ) -> Float[Tensor, "row token vocabulary"]:
        """Logits.

        Args:
            scale: Factor of each attention score, for interventions.
        """
        length = ids.shape[1]
        stream = self.embed(ids) + self.position(torch.arange(length))
        query, key, value = self.attn(self.norm_attn(stream)).chunk(3, -1)
        scores = (query @ key.mT / math.sqrt(query.shape[-1])) * torch.tril(torch.ones(length, length))
        self.attention = scores if scale is None else scores * scale
        stream = stream + self.attn_out(self.attention @ value)
        stream = stream + self.mlp(self.norm_mlp(stream))
        self.states = self.norm_out(stream)
        logits: Tensor = self.unembed(self.states)
        return logits


PARTS = {
    "token embeddings": ("embed.", "unembed."),
    "positions": ("position.",),
    "attention": ("attn.", "attn_out.", "norm_attn."),
    "MLP": ("mlp.", "norm_mlp."),
}
"""Prefixes of the parameters of each part, for training one part alone."""
