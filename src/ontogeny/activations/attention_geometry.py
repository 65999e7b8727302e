"""Geometry of attention: queries and keys of a head in one space, and numbers about it (AttentionViz, arXiv:2305.03210).

Keys are moved onto the mean of the queries, and both are scaled to one mean norm. Neither changes the softmax: the first adds a constant
to each row, the second cancels in q·k.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.activations.attention_vectors import AttentionVectors

HEAD_SCORES = ("distance_correlation", "previous_token", "first_token", "induction", "position_r2")
"""Names of `head_scores`, in their order."""
_FEWEST_KEYS = 4
"""Below it a correlation over the keys of a query says little."""


def joint_space(
    queries: Float[Tensor, "*head token d"],
    keys: Float[Tensor, "*head token d"],
    ratio: Float[Tensor, "*head"] | None = None,
) -> tuple[Float[Tensor, "*head token d"], Float[Tensor, "*head token d"]]:
    """Queries and keys moved and scaled into one space, where what is near attends to each other.

    Args:
        ratio: Factor by which queries are divided and keys multiplied; by default that of one mean norm.
    """
    if ratio is None:
        ratio = norm_ratio(queries, keys)
    scale = ratio[..., None, None]
    moved = keys - keys.mean(-2, keepdim=True)
    q, k = queries / scale, moved * scale
    return q, k + q.mean(-2, keepdim=True)


def norm_ratio(queries: Float[Tensor, "*head token d"], keys: Float[Tensor, "*head token d"]) -> Float[Tensor, "*head"]:
    """The factor that gives queries and keys one mean norm."""
    return (queries.norm(dim=-1).mean(-1) / keys.norm(dim=-1).mean(-1).clamp_min(1e-12)).sqrt().clamp_min(1e-12)


def correlation_ratio(vectors: Sequence[AttentionVectors]) -> Float[Tensor, "layer head"]:
    """The factor at which distances in the joint space follow the dot products best, as the paper chooses it.

    Of 17 factors from an eighth to eight times that of one mean norm, the one whose correlation is nearest to −1; pairs that attention sees
    count by e^(−distance / mean distance), so that near ones count most.

    Args:
        vectors: Of each text; the space is that of all texts.
    """
    queries, keys = (torch.cat([getattr(one, part) for one in vectors], 2) for part in ("queries", "keys"))
    counts = [one.queries.shape[2] for one in vectors]
    middle = norm_ratio(queries, keys)
    best, ratio = torch.full_like(middle, torch.inf), middle
    for step in range(-8, 9):
        tried = middle * 2 ** (3 * step / 8)
        spaces = [part.split(counts, 2) for part in joint_space(queries, keys, tried)]
        each = [_weighted_correlation(one, q, k) for one, q, k in zip(vectors, *spaces, strict=True)]
        correlation = torch.stack(each).nanmean(0).nan_to_num(torch.inf)
        ratio = torch.where(correlation < best, tried, ratio)
        best = torch.minimum(best, correlation)
    return ratio


def _weighted_correlation(
    one: AttentionVectors, q: Float[Tensor, "layer head token d"], k: Float[Tensor, "layer head token d"]
) -> Float[Tensor, "layer head"]:
    dots, distances = one.queries @ one.keys.transpose(-1, -2), torch.cdist(q, k)
    seen = (one.patterns > 0).to(dots)
    mean = (distances * seen).sum((-1, -2), keepdim=True) / seen.sum((-1, -2), keepdim=True).clamp_min(1)
    weights = seen * torch.exp(-distances / mean.clamp_min(1e-12))
    weights = weights / weights.sum((-1, -2), keepdim=True).clamp_min(1e-30)
    a, b = (x - (weights * x).sum((-1, -2), keepdim=True) for x in (dots, distances))
    spread = (weights * a.square()).sum((-1, -2)) * (weights * b.square()).sum((-1, -2))
    return (weights * a * b).sum((-1, -2)) / spread.sqrt()


def plane_of(
    queries: Float[Tensor, "*head token d"],
    keys: Float[Tensor, "*head token d"],
    ratio: Float[Tensor, "*head"] | None = None,
) -> Float[Tensor, "*head point 2"]:
    """The first two principal components of queries and keys together: the queries first, then the keys.

    Args:
        ratio: As `joint_space`.
    """
    points = torch.cat(joint_space(queries, keys, ratio), -2)
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
    queries: Float[Tensor, "token d"],
    keys: Float[Tensor, "token d"],
    start: Float[Tensor, "point 2"],
    ratio: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "point 2"]:
    """t-SNE of one head's queries and keys by their cosines in the joint space: the queries first, then the keys.

    Args:
        queries: Of one head.
        keys: Of the same head.
        start: Layout from which it starts and onto which it is turned, such as the plane of `plane_of`; so layouts of checkpoints agree.
        ratio: As `joint_space`.
    """
    from sklearn.manifold import TSNE

    points = torch.cat(joint_space(queries, keys, ratio), -2)
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


def head_scores(
    vectors: Sequence[AttentionVectors], ids: Sequence[Int[Tensor, " token"]]
) -> Float[Tensor, "layer head score"]:
    """Numbers about each head on some texts, in the order of `HEAD_SCORES`.

    `distance_correlation` is the correlation of q·k with the distance in the joint space of all texts, near −1 where near means attended.
    `previous_token` and `first_token` are the mean attention to that token, `induction` that to the token after an earlier equal one
    (NaN without one). These four are means over texts. `position_r2` is the share of the variance of all queries that a cubic in the
    position explains.

    Args:
        vectors: Of each text.
        ids: Of the tokens of each text.
    """
    queries, keys = (torch.cat([getattr(one, part) for one in vectors], 2) for part in ("queries", "keys"))
    counts = [len(own) for own in ids]
    spaces = [part.split(counts, 2) for part in joint_space(queries, keys)]
    rows = []
    for one, own, q, k in zip(vectors, ids, *spaces, strict=True):
        correlation = distance_correlation(one, q, k)
        first = one.patterns[..., 1:, 0].mean(-1) if len(own) > 1 else torch.full(correlation.shape, torch.nan)
        induction = induction_attention(one.patterns, own)
        rows.append(torch.stack([correlation, offset_attention(one.patterns, 1), first, induction], -1))
    position = _position_r2(queries, counts)
    return torch.cat([torch.stack(rows).nanmean(0), position[..., None]], -1)


def offset_attention(patterns: Float[Tensor, "*head query key"], back: int) -> Float[Tensor, "*head"]:
    """Mean attention to the token so many places back; NaN if the text is shorter."""
    if patterns.shape[-1] <= back:
        return torch.full(patterns.shape[:-2], torch.nan)
    return patterns.diagonal(-back, -2, -1).mean(-1)


def induction_attention(
    patterns: Float[Tensor, "*head query key"], ids: Int[Tensor, " token"], after: int = 1
) -> Float[Tensor, "*head"]:
    """Mean attention to the token so many places after an earlier equal one; NaN if no token returns."""
    count = len(ids)
    pairs = [(i, j + after) for i in range(count) for j in range(i - after) if ids[j] == ids[i]]
    if not pairs:
        return torch.full(patterns.shape[:-2], torch.nan)
    queries, keys = torch.tensor(pairs).T
    return patterns[..., queries, keys].mean(-1)


def distance_correlation(
    vectors: AttentionVectors, q: Float[Tensor, "layer head token d"], k: Float[Tensor, "layer head token d"]
) -> Float[Tensor, "layer head"]:
    """Correlation of the model's own q·k with the distances of moved queries and keys, over the pairs that attention sees."""
    dots = vectors.queries @ vectors.keys.transpose(-1, -2)
    return _masked_correlation(dots, torch.cdist(q, k), vectors.patterns > 0)


def query_correlation(
    vectors: AttentionVectors, q: Float[Tensor, "layer head token d"], k: Float[Tensor, "layer head token d"]
) -> Float[Tensor, "layer head"]:
    """As `distance_correlation`, over the keys of each query and then averaged over the queries that see at least four.

    Attention compares the keys of one query, and moving all keys adds a constant to each query's products: it changes the correlation over
    all pairs, and not this one.
    """
    dots, seen = vectors.queries @ vectors.keys.transpose(-1, -2), vectors.patterns > 0
    each = _masked_correlation(dots, torch.cdist(q, k), seen, over=(-1,))
    known = (seen.sum(-1) >= _FEWEST_KEYS) & each.isfinite()
    return torch.where(known, each, 0.0).sum(-1) / known.sum(-1)


def _masked_correlation(
    a: Float[Tensor, "layer head q k"],
    b: Float[Tensor, "layer head q k"],
    seen: Tensor,
    over: tuple[int, ...] = (-1, -2),
) -> Float[Tensor, "layer head *query"]:
    n = seen.sum(over, keepdim=True).clamp_min(1)
    a, b = (torch.where(seen, x - torch.where(seen, x, 0).sum(over, keepdim=True) / n, 0) for x in (a, b))
    return (a * b).sum(over) / (a.square().sum(over) * b.square().sum(over)).sqrt()


def _position_r2(queries: Float[Tensor, "layer head token d"], counts: Sequence[int]) -> Float[Tensor, "layer head"]:
    if queries.shape[-2] < 6:  # a cubic fits few points whatever they are
        return torch.full(queries.shape[:2], torch.nan)
    longest = max(max(counts) - 1, 1)
    place = torch.cat([2 * torch.arange(count, dtype=queries.dtype) / longest - 1 for count in counts])
    return explained_share(queries, torch.stack([place**power for power in range(1, 4)], 1))


def explained_share(
    points: Float[Tensor, "*head point d"], columns: Float[Tensor, "point b"]
) -> Float[Tensor, "*head"]:
    """Share of the variance of points that a linear function of columns explains, such as of a position or of one-hot classes.

    Args:
        columns: Of any rank, the same for every head; a constant is added.
    """
    one = torch.ones(len(columns), 1, dtype=points.dtype)
    left, sizes, _ = torch.linalg.svd(torch.cat([one, columns.to(points)], 1), full_matrices=False)
    basis = left[:, sizes > 1e-5 * sizes[0]]
    centred = points - points.mean(-2, keepdim=True)
    explained = (basis.T @ centred).square().sum((-1, -2))
    return explained / centred.square().sum((-1, -2)).clamp_min(1e-30)


def position_waves(positions: Int[Tensor, " point"], count: int, *, waves: int = 2) -> Float[Tensor, "point b"]:
    """A line over the positions, and sine and cosine of 1, 2, … turns over all of them: the axes on which a spiral is.

    Args:
        positions: Of the points, from 0.
        count: Number of positions.
    """
    phase = positions.float() / count
    turns = 2 * torch.pi * torch.arange(1, waves + 1) * phase[:, None]
    return torch.cat([phase[:, None], turns.sin(), turns.cos()], 1)


def path_turns(path: Float[Tensor, "*head position d"]) -> tuple[Float[Tensor, "*head"], Float[Tensor, "*head"]]:
    """How often a path of mean vectors by position turns around its centre in its first two principal components.

    Returns:
        Full turns, and their steadiness: net over total turning, 1 for a path that never turns back, near 0 for a random one.
    """
    centred = path - path.mean(-2, keepdim=True)
    axes = torch.linalg.eigh(centred.transpose(-1, -2) @ centred).eigenvectors[..., -2:]
    flat = centred @ axes
    angle = torch.atan2(flat[..., 1], flat[..., 0])
    step = (angle[..., 1:] - angle[..., :-1] + torch.pi) % (2 * torch.pi) - torch.pi
    net = step.sum(-1).abs()
    return net / (2 * torch.pi), net / step.abs().sum(-1).clamp_min(1e-12)


def key_norm_gap(keys: Float[Tensor, "*head token d"], token: int = 0) -> Float[Tensor, "*head"]:
    """How far the norm of one token's key is from the median of all others, in doublings; of either sign."""
    norms = keys.norm(dim=-1).clamp_min(1e-12)
    others = torch.cat([norms[..., :token], norms[..., token + 1 :]], -1)
    return (norms[..., token] / others.median(-1).values).log2()
