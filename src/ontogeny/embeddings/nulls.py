"""Null geometries: Gaussian clouds, shuffled tokens, and tokens shuffled among those of about the same frequency."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

MATCHED_TOKENS = 20
"""Tokens of neighbouring frequency ranks among which the frequency-matched null shuffles."""
_CLOUD_SEED = 0x6E0
"""Far from the seeds of trainings, so that no cloud is the first weights of a model."""
ShuffleKind = Literal["shuffled", "frequency_matched"]


def shuffled_order(count: int, *, seed: int) -> Int[Tensor, " token"]:
    """A random order of tokens."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def frequency_matched_order(log_frequency: Float[Tensor, " token"], *, seed: int) -> Int[Tensor, " token"]:
    """A random order in which each token takes the place of one of about its frequency: only what frequency explains is left."""
    count, generator = len(log_frequency), torch.Generator().manual_seed(seed)
    # Tokens of equal frequency come in random order, and the groups start at a random place.
    ties = torch.randperm(count, generator=generator)
    by_frequency = ties[log_frequency[ties].argsort(stable=True)]
    start = int(torch.randint(MATCHED_TOKENS, (1,), generator=generator))
    group = (torch.arange(count) + start) // MATCHED_TOKENS
    shuffled = torch.rand(count, generator=generator, dtype=torch.float64) + group
    order = torch.empty(count, dtype=torch.long)
    order[by_frequency] = by_frequency[shuffled.argsort()]
    return order


def null_orders(
    kind: ShuffleKind, count: int, log_frequency: Float[Tensor, " token"] | None, draws: int, *, seed: int
) -> list[Int[Tensor, " token"]]:
    """Random orders of a kind; none if it needs frequencies that are not known."""
    if kind == "shuffled":
        return [shuffled_order(count, seed=seed + draw) for draw in range(draws)]
    if log_frequency is None:
        return []
    return [frequency_matched_order(log_frequency, seed=seed + draw) for draw in range(draws)]


def gaussian_cloud(
    like: Float[Tensor, "token d"], *, same_covariance: bool = False, seed: int = 0
) -> Float[Tensor, "token d"]:
    """Gaussian vectors in the number and width of others, of unit variance or of their covariance."""
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(_CLOUD_SEED + seed))
    if not same_covariance:
        return drawn
    centred = like.double() - like.double().mean(0)
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(like))
    cloud: Tensor = drawn @ (variances.clamp(min=0).sqrt()[:, None] * axes.T).float()
    return cloud
