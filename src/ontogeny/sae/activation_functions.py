"""Activation functions of sparse autoencoders, on stacks of pre-activations: top-k, JumpReLU, sparsemax."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_LEAST_SCORE = 1e-25
"""Scores below it are 0; far from the least float, so that a score divided by it is finite."""
_BELOW_ONE = 1 - 2.0**-24
BANDWIDTH = 0.2
"""Width of the window in which the threshold of a JumpReLU has a gradient, in units of the scaled input."""


class _TopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: int) -> Tensor:
        least = _kth_largest(scores, k).clamp(min=_LEAST_SCORE)
        # A threshold at 1 is vectorised; comparing with a number for each token is not, and takes ten times as long.
        value = functional.threshold(scores / least, _BELOW_ONE, 0.0).mul_(least)
        ctx.save_for_backward(value)
        return value

    @staticmethod
    def backward(ctx: Any, d_value: Tensor) -> tuple[Tensor, None]:
        (value,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(d_value, value, 0.0), None


def top_k(scores: Float[Tensor, "*token latent"], k: int) -> Float[Tensor, "*token latent"]:
    """The k largest positive scores of each token, the others 0. Fewer fire where fewer are positive (arXiv:2406.04093)."""
    if k >= scores.shape[-1]:
        return scores.relu()
    value: Tensor = _TopK.apply(scores, k)
    return value


def _kth_largest(scores: Float[Tensor, "*token latent"], k: int) -> Float[Tensor, "*token 1"]:
    if scores.device.type != "cpu":
        return scores.topk(k, dim=-1).values[..., -1:]
    # NumPy's partition is eight times as fast as torch.topk on a CPU.
    place = scores.shape[-1] - k
    return torch.from_numpy(np.partition(scores.detach().numpy(), place, axis=-1)[..., place : place + 1])


class _JumpReLU(torch.autograd.Function):
    """z = h·1[h > θ] and the number of latents that fire; both have a gradient in θ by a rectangle kernel (arXiv:2407.14435)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        fires = scores > threshold
        ctx.save_for_backward(scores, threshold, fires)
        return torch.where(fires, scores, 0.0), fires.to(scores)

    @staticmethod
    def backward(ctx: Any, d_value: Tensor, d_fires: Tensor) -> tuple[Tensor, Tensor]:
        scores, threshold, fires = ctx.saved_tensors
        near = (scores - threshold).abs() < BANDWIDTH / 2
        d_threshold = torch.where(near, threshold * d_value + d_fires, 0.0).sum_to_size(threshold.shape)
        return torch.where(fires, d_value, 0.0), d_threshold / -BANDWIDTH


def jump_relu(
    scores: Float[Tensor, "*token latent"], threshold: Float[Tensor, "*#token latent"]
) -> tuple[Float[Tensor, "*token latent"], Float[Tensor, "*token latent"]]:
    """Scores above the threshold, the others 0; and 1 where a latent fires."""
    value, fires = _JumpReLU.apply(scores, threshold)
    return value, fires


class _Sparsemax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        ordered = _sort_descending(scores)
        rank = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
        total = ordered.cumsum(-1)
        support = (1 + rank * ordered > total).sum(-1, keepdim=True)
        cut = (total.gather(-1, support - 1) - 1) / support
        value = (scores - cut).clamp(min=0)
        ctx.save_for_backward(value > 0)
        return value

    @staticmethod
    def backward(ctx: Any, d_value: Tensor) -> Tensor:
        (support,) = ctx.saved_tensors
        mean = torch.where(support, d_value, 0.0).sum(-1, keepdim=True) / support.sum(-1, keepdim=True)
        return torch.where(support, d_value - mean, 0.0)


def sparsemax(scores: Float[Tensor, "*token latent"]) -> Float[Tensor, "*token latent"]:
    """Projection of the scores onto the probability simplex: non-negative, sum 1, most of them 0 (arXiv:1602.02068)."""
    value: Tensor = _Sparsemax.apply(scores)
    return value


def _sort_descending(scores: Tensor) -> Tensor:
    if scores.device.type != "cpu":
        return scores.sort(dim=-1, descending=True).values
    return torch.from_numpy(np.sort(scores.detach().numpy(), axis=-1)).flip(-1)
