"""Local similarity: how alike two models place each token among its neighbours (locally linear embedding, Roweis & Saul 2000).

A token is written as the weighted sum of its nearest neighbours that is closest to it, with weights that sum to one. These weights do not
change under a rotation, a scale or a translation, so the weights of two models can be compared (arXiv:2503.21073).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

LLE_RIDGE = 1e-3
"""Added to the diagonal, as a share of the trace of the local Gram matrix."""
_BLOCK = 512


def lle_weights(
    x: Float[Tensor, "token d"],
    queries: Int[Tensor, " query"],
    neighbours: Int[Tensor, "query k"],
    *,
    ridge: float = LLE_RIDGE,
) -> Float[Tensor, "query k"]:
    """Weights, which sum to one, of the neighbours whose weighted sum is closest to each token."""
    weights = []
    for block, near in zip(torch.split(queries, _BLOCK), torch.split(neighbours, _BLOCK), strict=True):
        offsets = (x[near] - x[block][:, None]).double()
        gram = offsets @ offsets.mT
        # Coinciding neighbours leave a Gram matrix of zeros: then all weigh the same.
        trace = gram.diagonal(dim1=1, dim2=2).sum(1)
        lifted = torch.where(trace > 0, ridge * trace, 1.0)
        gram.diagonal(dim1=1, dim2=2).add_(lifted[:, None])
        raw = torch.linalg.solve(gram, torch.ones(*near.shape, 1, dtype=gram.dtype))[..., 0]
        weights.append((raw / raw.sum(1, keepdim=True)).float())
    return torch.cat(weights)


def weight_cosines(
    near_x: Int[Tensor, "query k"],
    weights_x: Float[Tensor, "query k"],
    near_y: Int[Tensor, "query k"],
    weights_y: Float[Tensor, "query k"],
) -> Float[Tensor, " query"]:
    """Cosine of each token's weights in two models, as vectors over all tokens; 0 if they share no neighbour."""
    shared = (near_x[:, :, None] == near_y[:, None, :]).to(weights_x)
    product = torch.einsum("qi,qij,qj->q", weights_x, shared, weights_y)
    cosines: Tensor = product / (weights_x.norm(dim=1) * weights_y.norm(dim=1)).clamp(min=1e-30)
    return cosines


def neighbour_overlap(near_x: Int[Tensor, "query k"], near_y: Int[Tensor, "query k"]) -> Float[Tensor, " query"]:
    """Share of each token's neighbours in one model that are its neighbours in the other."""
    return (near_x[:, :, None] == near_y[:, None, :]).any(2).float().mean(1)
