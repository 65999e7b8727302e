"""Attention mass: the share of each head's attention that goes to chosen tokens, such as the system prompt or a target."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.errors import BadInput
from ontogeny.models.attention_patterns import AttentionCall, pattern_hooks
from ontogeny.models.forward import forward_padded
from ontogeny.models.model import Model


def attention_mass(
    model: Model,
    ids: Sequence[Int[Tensor, " token"]],
    tokens: Sequence[Bool[Tensor, " token"]],
    *,
    batch: int = 16,
) -> list[Float[Tensor, "layer head token"]]:
    """The share of the attention of each token that goes to the chosen tokens of its text, for every head (arXiv:2402.10962).

    Args:
        tokens: For each text, True at the chosen tokens.

    Raises:
        BadInput: a mask of another length than its text, or a family whose attention cannot be reached.
    """
    for row, mask in zip(ids, tokens, strict=True):
        if len(row) != len(mask):
            raise BadInput(f"`tokens` must have one value for each of {len(row)} tokens of a text, got {len(mask)}.")
    masses: dict[int, Tensor] = {}
    shares: list[Tensor] = []

    def reading(rows: list[int]) -> object:
        chosen = torch.nn.utils.rnn.pad_sequence([tokens[i] for i in rows], batch_first=True).to(model.device)
        shares.clear()

        def visit(call: AttentionCall) -> None:
            shares.append(torch.where(chosen[:, None, None], call.pattern, 0.0).sum(-1).cpu())

        return pattern_hooks(model, visit)

    for rows, _ in forward_padded(model, ids, batch=batch, body=True, context=reading):  # type: ignore[arg-type]
        stacked = torch.stack(shares, 1)
        masses.update({i: stacked[place, :, :, : len(ids[i])].clone() for place, i in enumerate(rows)})
    return [masses[i] for i in range(len(ids))]
