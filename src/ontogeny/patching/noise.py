"""Noise for patching: noised embeddings as the corrupt run (arXiv:2202.05262), and norm-matched random patches as a control."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.models.model import Model
from ontogeny.patching.activation_patching import BaselineRun, PatchingCost, PatchingPrompts, Prefix, run_baseline


def noise_embeddings(
    model: Model,
    prompts: PatchingPrompts,
    prefix: Prefix,
    where: Bool[Tensor, "row token"],
    sigma: Float[Tensor, " row"],
    cost: PatchingCost,
    *,
    seeds: Sequence[int],
) -> BaselineRun:
    """Run the prompts with Gaussian noise on the embeddings of some tokens.

    Args:
        where: tokens that get noise.
        sigma: standard deviation of the noise of each row.
        seeds: one per row, so that its noise does not depend on the batch.
    """
    drawn = torch.stack([_normal((where.shape[1], model.d), seed) for seed in seeds])
    drawn *= sigma.cpu()[:, None, None] * where.cpu()[..., None]

    def add(h: Tensor) -> Tensor:
        h = h.clone()
        h[:, -where.shape[1] :] += drawn.to(h)
        return h

    return run_baseline(model, prompts, prefix, cost, edit=add)


def noise_scale(
    embedded: Float[Tensor, "row token d"], where: Bool[Tensor, "row token"], scale: float
) -> Float[Tensor, " row"]:
    """`scale` standard deviations of the embeddings of the given tokens, for each row."""
    return scale * torch.stack([row[mask].std() for row, mask in zip(embedded, where.to(embedded.device), strict=True)])


def norm_matched_noise(
    change: Float[Tensor, "layer row token d"], *, seeds: Sequence[int]
) -> Float[Tensor, "layer row token d"]:
    """Vectors of random direction, each with the norm of the change it replaces."""
    layers, _, tokens, d = change.shape
    drawn = torch.stack([_normal((layers, tokens, d), seed) for seed in seeds], 1).to(change)
    return drawn * (change.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))


def _normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
