"""Interventions have their defining properties on random inputs; their controls are norm-matched."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ontogeny.direction import Direction
from ontogeny.errors import BadInput
from ontogeny.interventions import Ablate, Add, Cap, Clamp, Erase, Patch, RankOne, Reweight, SplitSoftmax, Zero
from ontogeny.probes.leace import leace
from ontogeny.sites import Site

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
widths = st.integers(2, 24)


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def each(seed, d):
    """One of each intervention on activations."""
    x = drawn(seed, 1, 60, d)
    y = (x[0, :, :1] + 0.1 * drawn(seed + 1, 60, 1) > 0).float()
    return [
        Add(drawn(seed, d), 2.5),
        Ablate.of(drawn(seed, d)),
        Clamp.to_value(drawn(seed, d), 1.5),
        Erase.of(leace(x, y)),
        Zero(),
        Patch(drawn(seed + 2, d)),
        Add(drawn(seed, d)) >> Ablate.of(drawn(seed + 3, d)),
    ]


@quick
@given(seeds, widths)
def test_two_additions_equal_one(seed, d):
    a, b = drawn(seed, d), drawn(seed + 1, d)
    assert Add(a) >> Add(b) == Add(a + b)
    assert Add(a, 0.5) >> Add(b, -2.0) == Add(0.5 * a + -2.0 * b)
    assert Add(a) >> Add(b) != Add(a - b)


@quick
@given(seeds, widths)
def test_edits_that_cancel_are_noops(seed, d):
    v, h = drawn(seed, d), drawn(seed + 1, 3, 5, d)
    for edit in (
        Add(v) >> Add(-v),
        Add(v, 0.0),
        Add(Direction(v, Site("resid", 1), "t") - Direction(v, Site("resid", 1), "t")),
    ):
        assert edit.is_noop
        assert edit(h) is h
    assert not Add(v, 1e-6).is_noop


@quick
@given(seeds, widths)
def test_all_but_add_are_idempotent(seed, d):
    h = drawn(seed + 9, 4, 6, d)
    for edit in each(seed, d)[1:6]:
        once = edit(h)
        torch.testing.assert_close(edit(once), once, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(Add(drawn(seed, d))(Add(drawn(seed, d))(h)), Add(drawn(seed, d))(h))


@quick
@given(seeds, st.integers(3, 24))
def test_ablation_removes_the_span_and_nothing_else(seed, d):
    u, w, h = drawn(seed, d), drawn(seed + 1, d), drawn(seed + 2, 40, d)
    left = Ablate.of(u, w)(h)
    assert (h @ u).abs().max() > 0.05
    for gone in (u, w):
        assert (left @ gone).abs().max() < 1e-4 * gone.norm()
    for kept in torch.linalg.svd(torch.stack([u, w]), full_matrices=True).Vh[2:]:
        torch.testing.assert_close(left @ kept, h @ kept, rtol=1e-4, atol=1e-4)


@quick
@given(seeds, widths)
def test_clamp_sets_the_projection(seed, d):
    u, h = drawn(seed, d), drawn(seed + 1, 7, d)
    clamped = Clamp.to_value(u, -0.75)(h) @ (u / u.norm())
    torch.testing.assert_close(clamped, torch.full((7,), -0.75), rtol=1e-4, atol=1e-4)


@settings(max_examples=8, deadline=None)
@given(seeds)
def test_erasure_removes_linear_readability(seed):
    d, n = 12, 400
    y = torch.arange(n) % 2 == 0
    x = drawn(seed, n, d) @ torch.diag(torch.linspace(3, 0.3, d)) + y[:, None] * drawn(seed + 1, d)
    erased = Erase.of(leace(x[None], y.double()[:, None]))(x[:, None])[:, 0]

    def auroc(h):
        probe = LogisticRegression(max_iter=2000).fit(h.numpy(), y.numpy())
        return roc_auc_score(y.numpy(), probe.decision_function(h.numpy()))

    assert auroc(x) > 0.75
    assert abs(auroc(erased) - 0.5) < 0.02


@quick
@given(seeds, widths)
def test_tokens_outside_the_mask_are_unchanged(seed, d):
    h, mask = drawn(seed, 3, 5, d), drawn(seed + 1, 3, 5) > 0
    for edit in [*each(seed, d), *(one.null(seed) for one in each(seed, d))]:
        changed = edit(h, mask)
        assert torch.equal(changed[~mask], h[~mask])
        torch.testing.assert_close(changed[mask], edit(h)[mask], rtol=1e-5, atol=1e-5)


@quick
@given(seeds, st.integers(4, 24))
def test_control_is_norm_matched_per_token(seed, d):
    h = drawn(seed + 5, 3, 5, d)
    for edit in each(seed, d):
        far = (edit(h) - h).norm(dim=-1)
        assert far.max() > 0.01
        torch.testing.assert_close((edit.null(seed)(h) - h).norm(dim=-1), far, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(edit.null(seed)(h), edit(h))
        assert edit.null(seed) == edit.null(seed)
        assert edit.null(seed) != edit.null(seed + 1)


@quick
@given(seeds, st.floats(0.1, 10))
def test_reweight_multiplies_the_attention_pattern(seed, factor):
    scores, keys = drawn(seed, 2, 3, 4, 6), drawn(seed + 1, 2, 6) > 0
    scores = scores.masked_fill(torch.ones(4, 6).triu(3).bool(), torch.finfo(torch.float32).min)
    plain = scores.softmax(-1)
    wanted = torch.where(keys[:, None, None], factor * plain, plain)
    wanted = wanted / wanted.sum(-1, keepdim=True)
    torch.testing.assert_close(Reweight(factor)(scores, keys).softmax(-1), wanted, rtol=1e-4, atol=1e-6)


@quick
@given(seeds, st.floats(0.05, 3), st.floats(0.05, 3), st.floats(0.1, 30))
def test_split_softmax_is_a_power_of_the_share_and_keeps_proportions(seed, k, again, sharp):
    scores, keys = sharp * drawn(seed, 2, 3, 4, 6), drawn(seed + 1, 2, 6) > 0
    plain = scores.masked_fill(torch.ones(4, 6).triu(3).bool(), -torch.inf).double().softmax(-1)
    chosen = keys[:, None, None].expand_as(plain)

    def share(pattern):
        return torch.where(chosen, pattern, 0.0).sum(-1)

    changed = SplitSoftmax(k)(plain, keys)
    torch.testing.assert_close(changed.sum(-1), torch.ones_like(changed[..., 0]))
    inner = (share(plain) > 1e-9) & (share(plain) < 1 - 1e-4)
    torch.testing.assert_close(share(changed)[inner], share(plain)[inner] ** k)
    for part in (chosen, ~chosen):
        sums = [torch.where(part, pattern, 0.0) for pattern in (plain, changed)]
        ratios = [one / one.sum(-1, keepdim=True) for one in sums]
        torch.testing.assert_close(ratios[0][inner], ratios[1][inner], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(
        SplitSoftmax(again)(changed, keys)[inner], SplitSoftmax(k * again)(plain, keys)[inner], rtol=1e-3, atol=1e-5
    )
    assert SplitSoftmax(1.0)(plain, keys) is plain
    assert SplitSoftmax(1.0).is_noop
    nobody, all_of_them = torch.zeros_like(keys), torch.ones_like(keys)
    assert torch.equal(SplitSoftmax(k)(plain, nobody), plain)
    assert torch.equal(SplitSoftmax(k)(plain, all_of_them), plain)


@quick
@given(seeds, widths, st.floats(-2, 0), st.floats(0, 2))
def test_capping_is_a_projection_on_a_range(seed, d, low, high):
    h, axis = drawn(seed, 3, 5, d), drawn(seed + 1, d)
    unit, cap = axis / axis.norm(), Cap.between(axis, low, high)
    capped = cap(h)
    inside = ((h @ unit) >= low) & ((h @ unit) <= high)
    assert torch.equal(capped[inside], h[inside])
    torch.testing.assert_close(capped @ unit, (h @ unit).clamp(low, high), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cap(capped), capped, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Ablate.of(axis)(capped), Ablate.of(axis)(h), rtol=1e-3, atol=1e-4)
    assert Cap.between(axis).is_noop
    assert Cap.between(axis)(h) is h


def test_factor_zero_keeps_future_tokens_masked():
    scores = torch.zeros(1, 1, 3, 3).masked_fill(torch.ones(3, 3).triu(1).bool(), torch.finfo(torch.float32).min)
    pattern = Reweight(0.0)(scores, torch.tensor([[False, True, False]])).softmax(-1)[0, 0]
    torch.testing.assert_close(pattern, torch.tensor([[1.0, 0, 0], [1, 0, 0], [0.5, 0, 0.5]]))


@quick
@given(seeds, widths)
def test_rank_one_edit_changes_the_output_of_its_key(seed, d):
    weight, k, v = drawn(seed, 7, d), drawn(seed + 1, 7), drawn(seed + 2, d)
    edit = RankOne(k / k.square().sum(), v)
    torch.testing.assert_close(k @ edit(weight), k @ weight + v, rtol=1e-3, atol=1e-4)
    null = edit.null(seed)
    torch.testing.assert_close((null(weight) - weight).norm(), (edit(weight) - weight).norm(), rtol=1e-3, atol=1e-4)


def test_patch_rows_follow_the_mask_not_the_padding():
    values, h = drawn(0, 3, 4), drawn(1, 2, 5, 4)
    left, right = torch.zeros(2, 5, dtype=torch.bool), torch.zeros(2, 5, dtype=torch.bool)
    left[0, 3:], left[1, 4:] = True, True
    right[0, :2], right[1, :1] = True, True
    assert torch.equal(Patch(values)(h, left)[left], Patch(values)(h, right)[right])
    assert torch.equal(Patch(values)(h, left)[left], values)
    with pytest.raises(BadInput, match="one for each of 10 tokens, got 3"):
        Patch(values)(h)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Add(torch.ones(3), float("nan")), "`alpha` must be a finite number"),
        (lambda: Add(torch.tensor([1.0, float("inf")])), "finite numbers"),
        (lambda: Ablate.of(torch.zeros(3)), "vector of zeros"),
        (lambda: Ablate.of(torch.ones(3), 2 * torch.ones(3)), "linearly independent"),
        (lambda: Ablate.of(torch.ones(3), torch.ones(4)), "must have one width"),
        (lambda: Ablate.of(), "at least one direction"),
        (lambda: Clamp.to_value(torch.ones(3), float("inf")), "must be a finite number"),
        (lambda: Reweight(-1.0), "from 0 on"),
        (lambda: Add(torch.ones(3)) >> Reweight(2.0), "must be of one kind"),
    ],
)
def test_invalid_interventions_are_rejected_in_one_line(make, words):
    with pytest.raises(BadInput, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_vector_that_overflows_is_told_from_one_of_another_shape():
    for vector, words in (
        (torch.full((4,), torch.inf), "infinite ones: choose a smaller alpha"),
        (torch.tensor([1.0, torch.nan]), "got NaN"),
        (torch.zeros(2, 4), r"got shape \(2, 4\)"),
    ):
        with pytest.raises(BadInput, match=words):
            Add(vector)
