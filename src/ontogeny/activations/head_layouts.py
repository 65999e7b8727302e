"""Scores of heads over many texts or images, each beside what it is compared with (AttentionViz, arXiv:2305.03210).

A head is keyed on a label if the label explains its queries or keys beyond shuffled labels: the position of a token, or the row, column,
hue or brightness of a patch.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from ontogeny.activations.attention_geometry import (
    explained_share,
    induction_attention,
    joint_space,
    key_norm_gap,
    norm_ratio,
    offset_attention,
    path_turns,
    position_waves,
    query_correlation,
)
from ontogeny.activations.attention_vectors import AttentionVectors

DISTANCES = ("moved and scaled", "moved only", "scaled only", "permuted keys")
"""Names of `distance_tracks`."""
_HeadScores = Float[Tensor, "layer head"]


def compared_head_scores(
    vectors: Sequence[AttentionVectors], ids: Int[Tensor, "text token"], *, shuffles: int = 5, seed: int = 0
) -> dict[str, tuple[_HeadScores, _HeadScores]]:
    """Each score of every head, and the number that it is compared with; NaN where no token returns.

    `previous_token` is the attention to it, beside the token before; `induction` that to the token after an earlier equal one, beside the
    equal one; `first_token` beside the second; `sink_norm` how far the norm of the first key is from the others in doublings, beside the
    second; `position_share` what a line and waves over the position explain of the queries, or of the keys where it is more; `spiral` how
    steadily their path winds. Shuffled positions are the null of the last two.

    Args:
        vectors: Of texts of one length.
        shuffles: Shuffles of the positions, the same in all texts.
    """
    patterns, keys = (torch.stack([getattr(one, part) for one in vectors]) for part in ("patterns", "keys"))
    pairs = list(zip(patterns, ids, strict=True))
    induction, equal = (
        torch.stack([induction_attention(p, own, after) for p, own in pairs]).nanmean(0) for after in (1, 0)
    )
    count = ids.shape[1]
    places = torch.arange(count)
    draw = torch.Generator().manual_seed(seed)
    orders = [places, *(torch.randperm(count, generator=draw) for _ in range(shuffles))]
    waves = [position_waves(order.repeat(len(ids)), count) for order in orders]
    shares, spirals = [_larger_share(vectors, columns) for columns in waves], [_winding(vectors, o) for o in orders]
    return {
        "previous_token": (offset_attention(patterns, 1).mean(0), offset_attention(patterns, 2).mean(0)),
        "induction": (induction, equal),
        "first_token": (patterns[..., 2:, 0].mean((0, -1)), patterns[..., 2:, 1].mean((0, -1))),
        "sink_norm": (key_norm_gap(keys).mean(0).abs(), key_norm_gap(keys, 1).mean(0).abs()),
        "position_share": (shares[0], torch.stack(shares[1:]).mean(0)),
        "spiral": (spirals[0], torch.stack(spirals[1:]).mean(0)),
    }


def distance_tracks(vectors: Sequence[AttentionVectors], *, seed: int = 0) -> dict[str, float]:
    """Minus the correlation of distance and dot product over the keys of a query, mean over queries, heads and texts.

    By how queries and keys are moved and scaled; with permuted keys the distances are of other pairs than the dot products.
    """
    sums = dict.fromkeys(DISTANCES, 0.0)
    draw = torch.Generator().manual_seed(seed)
    for one in vectors:
        q, k = one.queries, one.keys
        ratio = norm_ratio(q, k)
        scale = ratio[..., None, None]
        order = torch.randperm(q.shape[2], generator=draw)
        spaces = (
            joint_space(q, k),
            joint_space(q, k, torch.ones_like(ratio)),
            (q / scale, k * scale),
            joint_space(q, k[:, :, order]),
        )
        for name, space in zip(DISTANCES, spaces, strict=True):
            sums[name] -= float(query_correlation(one, *space).mean()) / len(vectors)
    return sums


def label_shares(
    vectors: Sequence[AttentionVectors], labels: Int[Tensor, "image patch"], *, shuffles: int = 5, seed: int = 0
) -> tuple[_HeadScores, _HeadScores]:
    """Share of the variance of the patches' queries, or of the keys where it is more, that a label explains; and under shuffled labels.

    A label that is the same in all images, such as the row, is shuffled in the same way in all of them, so that a head that knows places
    but not rows explains as much by chance.

    Args:
        vectors: Of images whose first token is the class token.
        labels: Class of each patch, from 0.
    """
    draw = torch.Generator().manual_seed(seed)
    fixed = bool((labels == labels[:1]).all())
    shares = []
    for number in range(shuffles + 1):
        used = labels
        if number and fixed:
            used = labels[:, torch.randperm(labels.shape[1], generator=draw)]
        elif number:
            used = labels.flatten()[torch.randperm(labels.numel(), generator=draw)].view_as(labels)
        shares.append(_larger_share(vectors, one_hot(used.flatten()).float(), first=1))
    return shares[0], torch.stack(shares[1:]).mean(0)


def _larger_share(
    vectors: Sequence[AttentionVectors], columns: Float[Tensor, "point b"], first: int = 0
) -> _HeadScores:
    shares = [
        explained_share(torch.cat([getattr(one, part)[:, :, first:] for one in vectors], 2), columns)
        for part in ("queries", "keys")
    ]
    return torch.maximum(*shares)


def _winding(vectors: Sequence[AttentionVectors], order: Int[Tensor, " token"]) -> _HeadScores:
    """Steadiness of the path of mean queries, or of mean keys where it is larger; without the first token, which is always the same."""
    paths = (torch.stack([getattr(one, part) for one in vectors]).mean(0) for part in ("queries", "keys"))
    queries, keys = (path_turns(path[:, :, order[order > 0]])[1] for path in paths)
    return torch.maximum(queries, keys)
