"""Several decoders of one shape in one network: every parameter has an axis of models, so that tiny ones cost no more than one."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class StackedDecoders(nn.Module):
    """Pre-norm decoders with learned positions that read the same sequences; the norms have no gains, which the next matrix holds.

    Args:
        starts: One number for each model; models with equal ones have equal initial weights.
        vocabulary: Number of tokens.
        hidden: Hidden units of an MLP.
    """

    def __init__(
        self, starts: Sequence[int], *, vocabulary: int, length: int, width: int, layers: int, heads: int, hidden: int
    ) -> None:
        super().__init__()
        self.heads, self.layers = heads, layers
        distinct = sorted(set(starts))
        places = torch.tensor([distinct.index(start) for start in starts])

        def matrix(*shape: int) -> nn.Parameter:
            drawn = torch.randn(len(distinct), *shape) / shape[0] ** 0.5
            return nn.Parameter(drawn[places])

        self.embed, self.position = matrix(vocabulary, width), matrix(length, width)
        self.attend = nn.ParameterList(matrix(width, 3 * width) for _ in range(layers))
        self.attend_out = nn.ParameterList(matrix(width, width) for _ in range(layers))
        self.widen = nn.ParameterList(matrix(width, hidden) for _ in range(layers))
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(len(starts), 1, hidden)) for _ in range(layers))
        self.narrow = nn.ParameterList(matrix(hidden, width) for _ in range(layers))
        self.unembed = matrix(width, vocabulary)

    def stream(self, ids: Int[Tensor, "row token"]) -> Float[Tensor, "model row token width"]:
        """Residual stream after the last block, before the last norm."""
        rows, length = ids.shape
        x = self.embed[:, ids] + self.position[:, None, :length]
        models, width = len(x), x.shape[-1]
        blind = torch.ones(length, length, dtype=torch.bool).triu(1)
        for layer in range(self.layers):
            parts = _norm(x).flatten(1, 2) @ self.attend[layer]
            query, key, value = parts.view(models, rows, length, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5)
            scores = (query @ key.mT / math.sqrt(query.shape[-1])).masked_fill(blind, -torch.inf)
            heard = (scores.softmax(-1) @ value).transpose(2, 3).reshape(models, rows * length, width)
            x = x + (heard @ self.attend_out[layer]).view_as(x)
            inner = torch.nn.functional.gelu(_norm(x).flatten(1, 2) @ self.widen[layer] + self.bias[layer])
            x = x + (inner @ self.narrow[layer]).view_as(x)
        return x

    def forward(self, ids: Int[Tensor, "row token"]) -> Float[Tensor, "model row token vocabulary"]:
        x = self.stream(ids)
        logits: Tensor = (_norm(x).flatten(1, 2) @ self.unembed).unflatten(1, x.shape[1:3])
        return logits


def _norm(x: Float[Tensor, "*row width"]) -> Float[Tensor, "*row width"]:
    return torch.nn.functional.layer_norm(x, x.shape[-1:])


def sequence_losses(
    logits: Float[Tensor, "model row token word"], ids: Int[Tensor, "row token"]
) -> Float[Tensor, "model row"]:
    """Cross-entropy of the tokens after the first, nats per token."""
    wanted = ids[:, 1:].expand(len(logits), -1, -1)
    loss = torch.nn.functional.cross_entropy(logits[:, :, :-1].flatten(0, 2), wanted.flatten(), reduction="none")
    return loss.view(wanted.shape).mean(2)
