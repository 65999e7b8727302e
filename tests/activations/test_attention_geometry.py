"""Geometry of attention: the joint space leaves the softmax, alignment leaves distances, and scores name planted heads."""

import math

import torch

from ontogeny.activations.attention_geometry import (
    HEAD_SCORES,
    _weighted_correlation,
    align_planes,
    correlation_ratio,
    distance_correlation,
    explained_share,
    head_scores,
    induction_attention,
    joint_space,
    key_norm_gap,
    neighbour_map,
    norm_ratio,
    offset_attention,
    path_turns,
    plane_of,
    position_waves,
)
from ontogeny.activations.attention_vectors import AttentionVectors


def random_vectors(tokens: int = 12, d: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(2, 3, tokens, d, generator=draw), torch.randn(2, 3, tokens, d, generator=draw)
    return queries * 3 + 1, keys - 2


def test_joint_space_leaves_the_softmax() -> None:
    queries, keys = random_vectors()
    q, k = joint_space(queries, keys)
    torch.testing.assert_close((q @ k.mT).softmax(-1), (queries @ keys.mT).softmax(-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(k.mean(-2), q.mean(-2), atol=1e-5, rtol=1e-4)


def test_planes_are_aligned_by_a_rotation() -> None:
    plane = plane_of(*random_vectors())
    turn = torch.tensor([[math.cos(2.0), -math.sin(2.0)], [math.sin(2.0), math.cos(2.0)]]) @ torch.diag(
        torch.tensor([1.0, -1.0])
    )
    torch.testing.assert_close(align_planes(plane @ turn, plane), plane, atol=1e-4, rtol=1e-4)
    other = plane_of(*(x.flip(-2) for x in random_vectors()))
    torch.testing.assert_close(
        torch.cdist(align_planes(other, plane), align_planes(other, plane)),
        torch.cdist(other, other),
        atol=1e-3,
        rtol=1e-3,
    )


def test_scores_name_planted_heads() -> None:
    ids = torch.tensor([4, 9, 7, 1, 4, 9, 7, 2])
    count = len(ids)
    previous, first, induction = (torch.eye(count) * 0.02 for _ in range(3))
    for i in range(count):
        previous[i, max(i - 1, 0)] = first[i, 0] = induction[i, i - 3 if 4 <= i <= 6 else 0] = 1
    patterns = torch.stack([previous, first, induction])[None]
    place = torch.linspace(0, 1, count)
    queries = torch.stack([place, place**2, place**3], 1).expand(1, 3, count, 3)
    keys = torch.randn(1, 3, count, 3, generator=torch.Generator().manual_seed(1))
    scores = head_scores([AttentionVectors(queries, keys, patterns / patterns.sum(-1, keepdim=True))], [ids])[0]
    named = {name: scores[:, i] for i, name in enumerate(HEAD_SCORES)}
    assert int(named["previous_token"].argmax()) == 0
    assert int(named["first_token"].argmax()) == 1
    assert int(named["induction"].argmax()) == 2
    assert float(named["induction"][2]) > 0.9
    assert float(named["position_r2"].min()) > 0.99
    none = head_scores([AttentionVectors(queries, keys, patterns)], [torch.arange(count)])
    assert bool(none[..., HEAD_SCORES.index("induction")].isnan().all())
    shuffled = queries[:, :, torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])]
    unplaced = head_scores([AttentionVectors(shuffled, keys, patterns)], [ids])
    assert float(unplaced[..., HEAD_SCORES.index("position_r2")].max()) < 0.9


def test_near_means_attended_where_distance_follows_the_dot_product() -> None:
    """Queries of one norm and keys of one norm: q·k falls with their distance."""
    draw = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(2, 1, 1, 40, 16, generator=draw), dim=-1)
    vectors = AttentionVectors(unit[0], unit[1] - unit[1].mean(-2, keepdim=True), torch.ones(1, 1, 40, 40) / 40)
    assert float(head_scores([vectors], [torch.arange(40)])[0, 0, 0]) < -0.8


def test_a_map_keeps_neighbours_and_the_turn_of_its_start() -> None:
    draw = torch.Generator().manual_seed(0)
    centres, member = 4 * torch.randn(3, 8, generator=draw), torch.arange(24) % 3
    queries, keys = (centres[member] + 0.3 * torch.randn(24, 8, generator=draw) for _ in range(2))
    start = plane_of(queries, keys)
    layout = neighbour_map(queries, keys, start)
    assert torch.equal(layout, neighbour_map(queries, keys, start))
    distances = torch.cdist(layout, layout).fill_diagonal_(torch.inf)
    whose = member.repeat(2)
    assert float((whose[distances.argmin(1)] == whose).double().mean()) == 1
    assert float((layout * (start - start.mean(0))).sum()) > 0
    assert neighbour_map(queries[:2], keys[:2], start[[0, 1, 24, 25]]).shape == (4, 2)


def test_any_scale_leaves_the_softmax_and_one_mean_norm_brings_distance_near_the_dot_product() -> None:
    queries, keys = random_vectors(40)
    vectors = AttentionVectors(queries, keys, torch.ones(2, 3, 40, 40) / 40)
    correlations = []
    for ratio in (None, torch.full((2, 3), 0.2), torch.full((2, 3), 5.0)):
        q, k = joint_space(queries, keys, ratio)
        torch.testing.assert_close((q @ k.mT).softmax(-1), (queries @ keys.mT).softmax(-1), atol=1e-4, rtol=1e-3)
        correlations.append(float(distance_correlation(vectors, q, k).mean()))
    assert correlations[0] < min(correlations[1:])


def test_share_of_the_variance_is_that_of_the_columns() -> None:
    draw = torch.Generator().manual_seed(0)
    member = torch.arange(60) % 4
    centres, noise = torch.randn(2, 4, 5, generator=draw), torch.randn(2, 60, 5, generator=draw)
    one_hot = torch.nn.functional.one_hot(member).float()
    assert float(explained_share(centres[:, member], one_hot).min()) > 0.9999
    points = centres[:, member] + noise
    means = torch.stack([points[:, member == c].mean(1) for c in range(4)], 1)[:, member]
    total = points - points.mean(1, keepdim=True)
    wanted = 1 - (points - means).square().sum((1, 2)) / total.square().sum((1, 2))
    torch.testing.assert_close(explained_share(points, one_hot), wanted, atol=1e-4, rtol=1e-4)
    # Twice the same column is one column.
    torch.testing.assert_close(explained_share(points, torch.cat([one_hot, one_hot], 1)), wanted, atol=1e-4, rtol=1e-4)


def test_spiral_of_three_turns_is_counted() -> None:
    place = torch.arange(40)
    angle = 2 * torch.pi * 3 * place / 39
    helix = torch.stack([3 * angle.cos(), 3 * angle.sin(), 0.1 * place / 40], 1)
    turns, steadiness = path_turns(helix[None])
    assert abs(float(turns) - 3) < 0.1
    assert float(steadiness) > 0.99
    draw = torch.Generator().manual_seed(0)
    shuffled = torch.stack([helix[order := torch.randperm(40, generator=draw)] for _ in range(20)])
    assert float(path_turns(shuffled)[1].mean()) < 0.4
    assert float(explained_share(helix, position_waves(place, 40, waves=3))) > 0.95
    assert float(explained_share(helix, position_waves(order, 40, waves=3))) < 0.5


def test_offsets_and_norms() -> None:
    patterns = torch.eye(6).roll(1, 0)[None]
    assert [float(offset_attention(patterns, back)) for back in (0, 1, 2)] == [0, 1, 0]
    assert bool(offset_attention(patterns, 6).isnan().all())
    ids = torch.tensor([1, 2, 3, 1, 2, 3])
    onto_next = torch.zeros(6, 6)
    onto_next[3, 1] = onto_next[4, 2] = onto_next[5, 3] = 1
    assert [round(float(induction_attention(onto_next, ids, after)), 3) for after in (0, 1, 2)] == [0, 1, 0]
    keys = torch.ones(2, 8, 3)
    keys[1, 0] *= 8
    assert key_norm_gap(keys).tolist() == [0, 3]
    assert key_norm_gap(keys, 1).tolist() == [0, 0]


def test_the_best_scale_brings_distance_nearest_to_the_dot_product() -> None:
    """Over several texts of other lengths; the factor of one mean norm is among those that are tried."""
    draw = torch.Generator().manual_seed(3)
    texts = []
    for count in (24, 17):
        queries, keys = (torch.randn(1, 3, count, 8, generator=draw) * size for size in (3.0, 0.5))
        keys = keys * torch.randn(1, 3, count, 1, generator=draw).exp() + 2  # norms that differ
        patterns = (queries @ keys.transpose(-1, -2) / 8**0.5).softmax(-1)
        texts.append(AttentionVectors(queries, keys, patterns))
    counts, whole = [24, 17], [torch.cat([getattr(one, part) for one in texts], 2) for part in ("queries", "keys")]

    def correlation(ratio: torch.Tensor) -> torch.Tensor:
        spaces = [part.split(counts, 2) for part in joint_space(*whole, ratio)]
        return torch.stack([_weighted_correlation(*each) for each in zip(texts, *spaces, strict=True)]).mean(0)

    best, norm = correlation(correlation_ratio(texts)), correlation(norm_ratio(*whole))
    assert bool((best <= norm + 1e-6).all())
    assert bool((best < norm - 1e-3).any())
