"""Geometry of attention: queries and keys of a head in one space, and numbers about it (AttentionViz, arXiv:2305.03210).

Keys are moved onto the mean of the queries, and both are scaled to one mean norm. Neither changes the softmax: the first adds a constant
to each row, the second cancels in q·k.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.attention_vectors import AttentionVectors

HEAD_SCORES = ("distance_correlation", "previous_token", "first_token", "induction", "position_r2")
"""Names of `head_scores`, in their order."""


def joint_space(
    queries: Float[Tensor, "*head token d"], keys: Float[Tensor, "*head token d"]
) -> tuple[Float[Tensor, "*head token d"], Float[Tensor, "*head token d"]]:
    """Queries and keys moved and scaled into one space, where what is near attends to each other."""
    ratio = (queries.norm(dim=-1).mean(-1) / keys.norm(dim=-1).mean(-1).clamp_min(1e-12)).sqrt().clamp_min(1e-12)
    scale = ratio[..., None, None]
    moved = keys - keys.mean(-2, keepdim=True)
    q, k = queries / scale, moved * scale
    return q, k + q.mean(-2, keepdim=True)


def plane_of(
    queries: Float[Tensor, "*head token d"], keys: Float[Tensor, "*head token d"]
) -> Float[Tensor, "*head point 2"]:
    """The first two principal components of queries and keys together: the queries first, then the keys."""
    points = torch.cat(joint_space(queries, keys), -2)
    centred = points - points.mean(-2, keepdim=True)
    axes = torch.linalg.eigh(centred.transpose(-1, -2) @ centred).eigenvectors[..., -2:].flip(-1)
    return centred @ axes


def align_planes(
    planes: Float[Tensor, "*head point 2"], reference: Float[Tensor, "*head point 2"]
) -> Float[Tensor, "*head point 2"]:
    """The planes, rotated and mirrored onto those of another checkpoint (orthogonal Procrustes); distances stay."""
    u, _, v = torch.linalg.svd(planes.transpose(-1, -2) @ reference)
    return planes @ (u @ v)


def neighbour_map(
    queries: Float[Tensor, "token d"], keys: Float[Tensor, "token d"], start: Float[Tensor, "point 2"]
) -> Float[Tensor, "point 2"]:
    """t-SNE of one head's queries and keys by their cosines in the joint space: the queries first, then the keys.

    Args:
        queries: Of one head.
        keys: Of the same head.
        start: Layout from which it starts and onto which it is turned, such as the plane of `plane_of`; so layouts of checkpoints agree.
    """
    from sklearn.manifold import TSNE

    points = torch.cat(joint_space(queries, keys), -2)
    spread = start[:, 0].std().clamp_min(1e-12)
    perplexity = min(50.0, (len(points) - 1) / 3)
    layout = TSNE(
        perplexity=perplexity,
        metric="cosine",
        init=(1e-4 * start / spread).numpy(),
        max_iter=500,
        random_state=0,
    ).fit_transform(points.numpy())
    found = torch.as_tensor(layout).float()
    return align_planes(found - found.mean(0), start - start.mean(0))


def head_scores(vectors: AttentionVectors, ids: Int[Tensor, " token"]) -> Float[Tensor, "layer head score"]:
    """Numbers about each head on one text, in the order of `HEAD_SCORES`.

    `distance_correlation` is the correlation of q·k with the distance in the joint space, near −1 where near means attended.
    `previous_token` and `first_token` are the mean attention to that token, `induction` that to the token after an earlier equal one
    (NaN without one). `position_r2` is the share of the variance of the queries that a cubic in the position explains.
    """
    q, k = joint_space(vectors.queries, vectors.keys)
    count = len(ids)
    seen = vectors.patterns > 0
    dots, distances = vectors.queries @ vectors.keys.transpose(-1, -2), torch.cdist(q, k)
    correlation = _masked_correlation(dots, distances, seen)
    previous = vectors.patterns.diagonal(-1, -2, -1).mean(-1) if count > 1 else torch.full(dots.shape[:2], torch.nan)
    first = vectors.patterns[..., 1:, 0].mean(-1) if count > 1 else torch.full(dots.shape[:2], torch.nan)
    pairs = [(i, j + 1) for i in range(count) for j in range(i - 1) if ids[j] == ids[i]]
    at = torch.tensor(pairs).T if pairs else None
    induction = torch.full(dots.shape[:2], torch.nan) if at is None else vectors.patterns[..., at[0], at[1]].mean(-1)
    return torch.stack([correlation, previous, first, induction, _position_r2(vectors.queries)], -1)


def _masked_correlation(
    a: Float[Tensor, "layer head q k"], b: Float[Tensor, "layer head q k"], seen: Tensor
) -> Float[Tensor, "layer head"]:
    n = seen.sum((-1, -2)).clamp_min(1)
    a, b = (torch.where(seen, x - (torch.where(seen, x, 0).sum((-1, -2)) / n)[..., None, None], 0) for x in (a, b))
    return (a * b).sum((-1, -2)) / (a.square().sum((-1, -2)) * b.square().sum((-1, -2))).sqrt()


def _position_r2(queries: Float[Tensor, "layer head token d"]) -> Float[Tensor, "layer head"]:
    count = queries.shape[-2]
    if count < 6:  # a cubic fits few points whatever they are
        return torch.full(queries.shape[:2], torch.nan)
    place = torch.linspace(-1, 1, count, dtype=queries.dtype)
    basis = torch.linalg.qr(torch.stack([place**power for power in range(4)], 1)).Q
    centred = queries - queries.mean(-2, keepdim=True)
    explained = (basis.T @ centred).square().sum((-1, -2))
    return explained / centred.square().sum((-1, -2))
