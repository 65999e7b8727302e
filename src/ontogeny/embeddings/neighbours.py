"""Nearest neighbours of some tokens among many, by Euclidean distance, in blocks of a fixed size of memory."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.embeddings.similarity import WORKING_BYTES
from ontogeny.errors import BadInput
from ontogeny.linalg.matmul import matmul


def nearest_neighbours(
    x: Float[Tensor, "token d"], queries: Int[Tensor, " query"], k: int
) -> tuple[Int[Tensor, "query k"], Float[Tensor, "query k"]]:
    """Indices of the k nearest other tokens, nearest first, and their distances.

    Raises:
        BadInput: there are fewer than k other tokens.
    """
    if not 1 <= k < len(x):
        raise BadInput(
            f"the number of neighbours must be at least 1 and below the number of tokens, got {k} of {len(x):,} tokens: choose fewer "
            "neighbours, or compare more tokens."
        )
    x = x - x.mean(0)  # distances stay, rounding errors shrink
    squares = x.square().sum(1)
    size = max(1, WORKING_BYTES // (4 * max(2 * len(x), 2 * k * x.shape[1])))
    indices, distances = [], []
    for block in torch.split(queries, size):
        far = squares[None] - 2 * matmul(x[block], x.T)
        far[torch.arange(len(block)), block] = torch.inf
        near = far.topk(k, largest=False, sorted=False).indices
        exact = (x[near] - x[block][:, None]).norm(dim=2)
        exact, order = exact.sort(dim=1, stable=True)
        indices.append(near.gather(1, order))
        distances.append(exact)
    return torch.cat(indices), torch.cat(distances)
