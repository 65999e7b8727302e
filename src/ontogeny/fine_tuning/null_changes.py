"""Null changes of weights: as large as a weight difference and of its rank, in random directions or in those of an unrelated gradient."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ontogeny.errors import BadInput
from ontogeny.fine_tuning.subspaces import SingularVectors, random_orthonormal
from ontogeny.fine_tuning.weight_differences import BlockMatrix
from ontogeny.models.model import Model


def random_change(
    values: Float[Tensor, " r"], shape: Sequence[int], generator: torch.Generator
) -> Float[Tensor, "out in"]:
    """A random matrix with the given singular values, so that its rank and norm are those of a weight difference.

    Args:
        shape: Of the matrix: out, in.
    """
    left, right = (random_orthonormal(d, len(values), generator).to(values) for d in shape)
    return (left * values) @ right.T


def gradient_change(values: Float[Tensor, " r"], gradient: SingularVectors) -> Float[Tensor, "out in"]:
    """A matrix with the given singular values along the singular vectors of a gradient, in the direction in which its loss falls.

    These are directions to which the model is sensitive, for a reason that has nothing to do with the fine-tuning. A gradient of lower rank
    takes the largest values, scaled to the norm of all.

    Raises:
        BadInput: the gradient is zero.
    """
    rank = min(gradient.rank, len(values))
    if not rank:
        raise BadInput("the gradient on neutral texts must not be zero: give other texts.")
    kept = values[:rank] * (values.norm() / values[:rank].norm())
    left, right = (side[:, :rank].to(values) for side in (gradient.left, gradient.right))
    change: Tensor = -(left * kept) @ right.T
    return change


def loss_gradients(
    model: Model, texts: Sequence[Int[Tensor, " token"]], matrices: Sequence[BlockMatrix], *, batch: int = 16
) -> Mapping[str, Float[Tensor, "out in"]]:
    """Gradient of the mean loss per token on texts, by name of the parameter, in the orientation y = W x.

    Raises:
        BadInput: no text has two tokens.
    """
    rows = [ids for ids in texts if len(ids) > 1]
    if not rows:
        raise BadInput("neutral texts must have at least two tokens each, got none: give longer ones.")
    weights = [matrix.module.get_parameter("weight") for matrix in matrices]
    required = [weight.requires_grad for weight in weights]
    total = sum(len(ids) - 1 for ids in rows)
    sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        for first in range(0, len(rows), batch):
            part = rows[first : first + batch]
            ids = torch.nn.utils.rnn.pad_sequence(part, batch_first=True).to(model.device)
            real = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in part], batch_first=True).to(ids)
            logits = model.network(input_ids=ids, attention_mask=real, use_cache=False).logits[:, :-1].float()
            targets = ids[:, 1:].where(real[:, 1:].bool(), -100)
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / total
            for sum_, gradient in zip(sums, torch.autograd.grad(loss, weights), strict=True):
                sum_ += gradient.float()
    finally:
        for weight, before in zip(weights, required, strict=True):
            weight.requires_grad_(before)
    return {matrix.parameter: matrix.stored(of) for matrix, of in zip(matrices, sums, strict=True)}
