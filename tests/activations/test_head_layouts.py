"""Layouts of heads: planted positions, labels and sinks exceed their comparisons, and moving keys hides what all queries share."""

import math

import pytest
import torch

from ontogeny.activations.attention_geometry import joint_space, query_correlation
from ontogeny.activations.attention_vectors import AttentionVectors
from ontogeny.activations.head_layouts import DISTANCES, compared_head_scores, distance_tracks, label_shares

TOKENS, TEXTS = 24, 6


def planted() -> list[AttentionVectors]:
    """Head 0 winds by position and looks back by one, head 1 looks at the first token with a long key, head 2 is random."""
    draw, texts = torch.Generator().manual_seed(0), []
    angle = 4 * torch.pi * torch.arange(TOKENS) / TOKENS
    for _ in range(TEXTS):
        queries, keys = (torch.randn(1, 3, TOKENS, 4, generator=draw) for _ in range(2))
        keys[0, 0] = 0.1 * keys[0, 0] + 3 * torch.stack([angle.cos(), angle.sin(), 0 * angle, 0 * angle], 1)
        keys[0, 1, 0] *= 8
        patterns = torch.rand(1, 3, TOKENS, TOKENS, generator=draw).tril()
        patterns[0, 0].diagonal(-1).add_(20)
        patterns[0, 1, :, 0] += 20
        texts.append(AttentionVectors(queries, keys, patterns / patterns.sum(-1, keepdim=True)))
    return texts


def test_planted_heads_exceed_what_they_are_compared_with() -> None:
    ids = torch.arange(TOKENS).expand(TEXTS, -1)
    scores = compared_head_scores(planted(), ids, shuffles=8)
    gaps = {name: (own - compared)[0] for name, (own, compared) in scores.items()}
    for name, head in (
        ("previous_token", 0),
        ("first_token", 1),
        ("sink_norm", 1),
        ("position_share", 0),
        ("spiral", 0),
    ):
        assert int(gaps[name].argmax()) == head, name
        assert float(gaps[name][head]) > 0.4, name
    assert bool(gaps["induction"].isnan().all())  # no token returns


@pytest.mark.parametrize("fixed", [True, False])
def test_labels_are_seen_beyond_shuffled_ones(fixed: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (TEXTS, 16), generator=draw)
    labels = (torch.arange(16) // 4).expand(TEXTS, -1) if fixed else labels
    centres = 2 * torch.randn(4, 5, generator=draw)
    texts = []
    for own in labels:
        queries, keys = (torch.randn(1, 2, 17, 5, generator=draw) for _ in range(2))
        keys[0, 1, 1:] += centres[own]
        texts.append(AttentionVectors(queries, keys, torch.full((1, 2, 17, 17), 1 / 17)))
    (plain, seen), (compared, shuffled) = (share[0].tolist() for share in label_shares(texts, labels, shuffles=8))
    assert seen - shuffled > 0.4
    assert abs(plain - compared) < 0.1


def test_moving_the_keys_hides_what_all_queries_share() -> None:
    """Keys of one norm: distance follows the product of a query exactly, until the part along the mean query is moved away."""
    draw = torch.Generator().manual_seed(2)
    keys = torch.nn.functional.normalize(torch.randn(1, 1, 40, 8, generator=draw), dim=-1)
    queries = torch.randn(1, 1, 40, 8, generator=draw) * 0.3 + torch.eye(8)[0] * 3
    one = AttentionVectors(queries, keys, torch.ones(40, 40).tril()[None, None] / 40)
    tracks = distance_tracks([one])
    assert tuple(tracks) == DISTANCES
    assert float(query_correlation(one, queries, keys)) < -0.99
    assert tracks["scaled only"] > 0.99
    assert tracks["moved and scaled"] < 0.7
    assert abs(tracks["permuted keys"]) < 0.3
    few = AttentionVectors(queries[:, :, :3], keys[:, :, :3], torch.ones(1, 1, 3, 3).tril() / 3)
    assert math.isnan(float(query_correlation(few, *joint_space(few.queries, few.keys))))
