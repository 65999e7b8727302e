"""Splits, bootstrap, permutations, false-discovery rate, control tasks: exact properties."""

import itertools
import math
import time
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.errors import BadInput
from ontogeny.statistics import bootstrap, permutation
from ontogeny.statistics.bootstrap import (
    auroc_samples,
    group_weights,
    macro_auroc_samples,
    mean_samples,
    percentile_interval,
    r2_samples,
    share_interval,
)
from ontogeny.statistics.control_tasks import (
    control_labels,
    control_types,
    random_directions,
    selectivity,
    type_baseline,
)
from ontogeny.statistics.fdr import q_values
from ontogeny.statistics.permutation import (
    auroc_test,
    average_ranks,
    familywise_p,
    group_permutations,
    least_p,
    macro_auroc_test,
    permutation_test,
    permuted_r2,
)
from ontogeny.statistics.splits import contiguous_split, group_folds, group_split

small = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)


def grouped(seed: int, *, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Groups of 1 to 5 examples; a third of mixed labels."""
    g = torch.Generator().manual_seed(seed)
    groups = torch.arange(count).repeat_interleave(torch.randint(1, 6, (count,), generator=g))
    block = torch.rand(count, generator=g)[groups] < 0.5
    mixed = (torch.arange(count) % 3 == 0)[groups]
    y = torch.where(mixed, torch.rand(len(groups), generator=g) < 0.5, block)
    order = torch.randperm(len(groups), generator=g)
    return groups[order] * 7 - 3, y[order]


@small
@given(seeds)
def test_split_keeps_groups_together_and_classes_balanced(seed):
    groups, y = grouped(seed)
    split = group_split(groups, y, "binary", test=0.3, seed=seed)
    assert sorted([*split.train.tolist(), *split.test.tolist()]) == list(range(len(y)))
    assert not set(groups[split.train].tolist()) & set(groups[split.test].tolist())
    for label in (True, False):
        share = (y[split.test] == label).sum() / (y == label).sum()
        assert abs(share - 0.3) < 0.07
    again = group_split(groups, y, "binary", test=0.3, seed=seed)
    assert again.test.equal(split.test)
    assert not group_split(groups, y, "binary", test=0.3, seed=seed + 1).test.equal(split.test)


@small
@given(seeds, st.integers(2, 6))
def test_folds_share_no_group(seed, k):
    groups, y = grouped(seed)
    fold = group_folds(groups, y, "binary", k=k, seed=seed)
    assert set(fold.tolist()) == set(range(k))
    assert all(len(fold[groups == group].unique()) == 1 for group in groups.unique())
    sizes = torch.bincount(fold)
    assert sizes.max() - sizes.min() <= 10


def test_split_balances_numbers_by_quintiles():
    y = torch.randn(300, generator=torch.Generator().manual_seed(0))
    split = group_split(torch.arange(300), y, "number", test=0.2, seed=0)
    assert len(split.test) == pytest.approx(60, abs=2)
    assert (y[split.test] > y.quantile(0.8)).sum() == pytest.approx(12, abs=1)


def test_rejects_impossible_splits():
    y = torch.tensor([True, True, False, False])
    with pytest.raises(BadInput, match="got 1 group"):
        group_split(torch.zeros(4, dtype=torch.long), y, "binary", seed=0)
    with pytest.raises(BadInput, match="too few groups"):
        group_split(torch.tensor([0, 0, 1, 1]), y, "binary", seed=0)
    with pytest.raises(BadInput, match="only examples labelled True"):
        group_split(torch.arange(4), torch.ones(4, dtype=torch.bool), "binary", seed=0)
    with pytest.raises(BadInput, match="add examples of other groups"):
        group_folds(torch.arange(4), y, "binary", k=5, seed=0)
    with pytest.raises(BadInput, match="use fewer folds"):
        group_folds(torch.arange(10), torch.arange(10) < 2, "binary", k=5, seed=0)
    with pytest.raises(BadInput, match="between 0 and 1"):
        group_split(torch.arange(4), y, "binary", test=1.0, seed=0)
    with pytest.raises(BadInput, match="both sides of a split need examples"):
        contiguous_split(1)
    assert contiguous_split(10).test.tolist() == [8, 9]


def test_bootstrap_draws_whole_groups():
    groups, _ = grouped(1)
    weights = group_weights(groups, samples=200, seed=3)
    for group in groups.unique():
        inside = weights[:, groups == group]
        assert (inside == inside[:, :1]).all()
    first = torch.tensor([groups.tolist().index(g) for g in groups.unique().tolist()])
    assert (weights[:, first].sum(1) == 40).all()
    assert weights.equal(group_weights(groups, samples=200, seed=3))


@small
@given(seeds, st.integers(1, 40))
def test_weighted_auroc_equals_auroc_of_repeated_examples(seed, levels):
    g = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (3, 30), generator=g).float()
    y = torch.rand(30, generator=g) < 0.5
    y[0], y[1] = True, False
    weights = torch.randint(0, 3, (4, 30), generator=g).float()
    got = auroc_samples(scores, y, weights)
    for sample, w in enumerate(weights):
        expanded = torch.arange(30).repeat_interleave(w.long())
        want = auroc_test(scores[:, expanded], y[expanded], y[expanded][None]).observed
        torch.testing.assert_close(got[sample].double(), want, equal_nan=True)
    # One more road to the same number: all pairs, counted.
    pairs = scores[0][y][:, None] - scores[0][~y]
    counted = ((pairs > 0).double() + (pairs == 0).double() / 2).mean()
    torch.testing.assert_close(auroc_test(scores, y, y[None]).observed[0], counted)


def test_resampling_along_sorted_scores_equals_all_pairs(monkeypatch):
    g = torch.Generator().manual_seed(0)
    y = torch.rand(300, generator=g) < 0.4
    scores = torch.stack(
        [torch.randn(300, generator=g) + y, torch.randint(5, (300,), generator=g).float(), torch.ones(300)]
    )
    weights = group_weights(torch.arange(300) // 3, samples=400, seed=1)
    weights[3, y] = 0  # a resample of one class
    pairs = auroc_samples(scores, y, weights)
    monkeypatch.setattr(bootstrap, "_SORTED_FROM", 0)
    assert auroc_samples(scores, y, weights).nan_to_num(-1).equal(pairs.nan_to_num(-1))
    assert pairs[3].isnan().all()


def test_weighted_means_and_r2_equal_those_of_repeated_examples():
    g = torch.Generator().manual_seed(0)
    y, predicted = torch.randn(50, generator=g) + 100, torch.randn(2, 50, generator=g) / 2 + 100
    weights = torch.randint(0, 3, (1, 50), generator=g).float()
    repeated = torch.arange(50).repeat_interleave(weights[0].long())
    torch.testing.assert_close(mean_samples(predicted, weights)[0], predicted[:, repeated].mean(1))
    inside = y[repeated]
    want = 1 - (inside - predicted[:, repeated]).square().sum(1) / (inside - inside.mean()).square().sum()
    torch.testing.assert_close(r2_samples(predicted, y, weights)[0], want, rtol=1e-4, atol=1e-4)


def test_thousand_resamples_of_a_sweep_are_fast():
    scores, y = torch.randn(21, 200), torch.arange(200) % 2 == 0
    weights = group_weights(torch.arange(100).repeat_interleave(2), samples=1000, seed=0)
    took = []
    for _ in range(3):
        start = time.perf_counter()
        auroc_samples(scores, y, weights)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.3


def test_one_class_gives_nan_and_perfect_score_has_interval():
    one = torch.ones(20, dtype=torch.bool)
    assert auroc_samples(torch.randn(1, 20), one, torch.ones(5, 20)).isnan().all()
    assert auroc_test(torch.randn(1, 20), one, one[None]).p.isnan().all()
    perfect = share_interval(torch.tensor([1.0, 0.0, torch.nan]), torch.ones(100, 3), groups=20)
    assert 0.8 < perfect.low[0] < 0.9
    assert perfect.high[0] == 1
    assert perfect.low[1] == 0
    assert perfect.high[1] == pytest.approx(1 - perfect.low[0].item())
    assert perfect.low[2].isnan()
    wide = percentile_interval(
        torch.tensor(0.0), torch.randn(5000, generator=torch.Generator().manual_seed(0)), groups=5
    )
    assert wide.high == pytest.approx(2.78 * (5 / 4) ** 0.5, rel=0.06)


def test_share_that_no_group_differs_from_has_an_interval_of_its_groups():
    """At 0 and 1 it is that of the edges; it narrows with the number of groups, and rounding does not hide it."""
    half = torch.tensor([[1.0, 0.0] * 12])
    ends = [
        share_interval(
            half.mean(1), mean_samples(half, group_weights(groups, samples=200)), groups=len(groups.unique())
        )
        for groups in (torch.arange(24) // 8, torch.arange(24) // 2)
    ]
    assert [float(end.low) for end in ends] == pytest.approx([0.5 * 0.025 ** (1 / n) for n in (3, 12)], rel=1e-6)
    assert [float(end.low + end.high) for end in ends] == pytest.approx([1, 1], rel=1e-6)
    thirds = torch.tensor([5 / 7, 0.0, 1.0])
    rounded = share_interval(thirds, thirds + 3e-8 * torch.randn(100, 3), groups=9)
    edges = share_interval(thirds[1:], thirds[1:].expand(100, 2), groups=9)
    assert rounded.low[1:].equal(edges.low)
    assert rounded.low[0] == pytest.approx(5 / 7 * 0.025 ** (1 / 9))


@small
@given(seeds)
def test_permutations_respect_groups(seed):
    groups, y = grouped(seed)
    index = group_permutations(y, groups, samples=20, seed=seed)
    permuted = y[index]
    moved = False
    for group in groups.unique():
        inside, before = permuted[:, groups == group], y[groups == group]
        if before.unique().numel() > 1:
            assert (inside.sum(1) == before.sum()).all()
        else:
            assert (inside == inside[:, :1]).all()
            moved |= bool((inside[:, 0] != before[0]).any())
    assert moved
    assert index.equal(group_permutations(y, groups, samples=20, seed=seed))


def test_rejects_permutation_of_equal_labels():
    with pytest.raises(BadInput, match="a permutation test needs two classes"):
        group_permutations(torch.ones(6, dtype=torch.bool), torch.arange(6), samples=10, seed=0)


def test_permuted_scores_equal_scores_of_permuted_labels():
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (5, 60), generator=g)
    scores = torch.randn(2, 60, 3, generator=g)
    macro = macro_auroc_test(scores, labels[2], labels)
    torch.testing.assert_close(macro.observed, macro_auroc_samples(scores, labels[2], torch.ones(1, 60))[0].double())
    torch.testing.assert_close(macro.maxima[2], macro.observed.amax())
    values = torch.randn(5, 60, generator=g)
    guess = torch.randn(2, 60, generator=g)
    want = 1 - (values[4] - guess[1]).square().sum() / (values[4] - values[4].mean()).square().sum()
    torch.testing.assert_close(permuted_r2(guess, values)[4, 1], want.double(), rtol=1e-5, atol=1e-5)
    assert average_ranks(torch.tensor([[3.0, 1.0, 3.0, 7.0]])).tolist() == [[2.5, 1.0, 2.5, 4.0]]


def test_p_values_count_observed_labelling_and_keep_nan():
    nan = torch.nan
    table = torch.tensor([[0.5, nan], [0.1, 0.2], [0.3, nan], [0.5, 0.9], [0.2, 0.4]], dtype=torch.float64)
    test = permutation_test(lambda labels: table[labels[:, 0]], torch.tensor([0]), torch.tensor([[1], [2], [3], [4]]))
    assert test.p.nan_to_num(-1).tolist() == [2 / 5, -1]
    assert test.maxima.tolist() == [0.2, 0.3, 0.9, 0.4]
    familywise = familywise_p(torch.tensor([[0.95, 0.4], [0.1, nan]], dtype=torch.float64), test.maxima)
    assert familywise.nan_to_num(-1).tolist() == [[1 / 5, 3 / 5], [1.0, -1.0]]


@small
@given(seeds, st.sampled_from([2, 5, 40]))
def test_permutation_p_equals_exact_enumeration(seed, levels):
    """All labellings of nine examples, with ties; the exact share is counted in fractions."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (4, 9), generator=g).float() / 7
    chosen = list(itertools.combinations(range(9), 4))
    labels = torch.zeros(len(chosen), 9, dtype=torch.bool)
    for row, positives in enumerate(chosen):
        labels[row, list(positives)] = True
    test = auroc_test(scores, labels[0], labels)
    for site, of_site in enumerate(scores.tolist()):
        exact = [_exact_auroc(of_site, positives) for positives in chosen]
        reached = sum(value >= exact[0] for value in exact)
        assert float(test.p[site]) == (1 + reached) / (1 + len(chosen))
    assert least_p(labels[0], labels) == 2 / (1 + len(chosen))
    assert (test.p >= least_p(labels[0], labels)).all()


def _exact_auroc(scores: list[float], positives: tuple[int, ...]) -> Fraction:
    pairs = [(scores[a], scores[b]) for a in positives for b in range(len(scores)) if b not in positives]
    return Fraction(sum(2 * (a > b) + (a == b) for a, b in pairs), 2 * len(pairs))


def test_permutation_test_is_the_same_in_blocks_and_with_unequal_classes(monkeypatch):
    groups, y = grouped(5)
    scores = torch.randn(3, len(y), generator=torch.Generator().manual_seed(1))
    scores[1, 4] = torch.nan
    labels = y[group_permutations(y, groups, samples=50, seed=2)]
    assert (labels.sum(1) != y.sum()).any()
    whole = auroc_test(scores, y, labels)
    for row in (0, 17):
        alone = auroc_test(scores, labels[row], labels[row][None]).observed
        torch.testing.assert_close(whole.maxima[row], alone[~alone.isnan()].amax())
    assert whole.p.isnan().tolist() == [False, True, False]
    monkeypatch.setattr(permutation, "_BLOCK", 3 * len(y))
    blocks = auroc_test(scores, y, labels)
    assert whole.p.nan_to_num(-1).equal(blocks.p.nan_to_num(-1))
    assert whole.maxima.equal(blocks.maxima)


@small
@given(st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=30))
def test_q_values_equal_their_definition(listed):
    p = torch.tensor(listed, dtype=torch.float64)
    q = q_values(p)
    known = p[~p.isnan()]
    for value, got in zip(p, q, strict=True):
        if value.isnan():
            assert got.isnan()
            continue
        # Smallest over all thresholds at or above: threshold × tests / discoveries.
        want = min(float(t) * len(known) / int((known <= t).sum()) for t in known if t >= value)
        assert float(got) == pytest.approx(min(want, 1.0))
        assert got >= value - 1e-12


SENTENCES = [f"the {a} of {c} is near {b}" for a in ("city", "port") for b in "abcdefghij" for c in "uvwxyz"]


def test_control_types_recur_across_split():
    n = len(SENTENCES)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    train, test = order[: n * 2 // 3], order[n * 2 // 3 :]
    types = control_types(SENTENCES, train, test)
    assert types.rule == "last word"
    assert types.usable.float().mean() > 0.9
    ids = {text.split()[-1]: types.ids[i].item() for i, text in enumerate(SENTENCES)}
    assert all(types.ids[i] == ids[text.split()[-1]] for i, text in enumerate(SENTENCES))
    assert len(set(ids.values())) == 10
    # A first word that recurs more often than the last wins; a word that is nearly always the same never does.
    mirrored = [" ".join(reversed(text.split())) + f" {i}" for i, text in enumerate(SENTENCES)]
    assert control_types(mirrored, train, test).rule == "first word"


def test_no_control_task_without_recurring_words():
    texts = [f"a{i} b{i} c{i}" for i in range(60)]
    types = control_types(texts, torch.arange(40), torch.arange(40, 60))
    assert types.rule is None
    assert "only 0 types" in types.reason
    inside = [f"q{i} xyz{word} r{i} s{i}" for i, word in enumerate("abcdefghij" * 6)]
    assert control_types(inside, torch.arange(40), torch.arange(40, 60)).rule == "longest recurring word"
    constant = [f"{text} end" for text in SENTENCES]
    even = torch.arange(0, 120, 2)
    assert control_types(constant, even, even + 1).rule == "second-last word"


def test_pairs_and_rare_words_give_types_where_single_words_do_not():
    # The last and first words take two values each: four types by both, sixteen by the last two words.
    texts = [f"{a} {i} {b} {c}" for i, (a, b, c) in enumerate(itertools.product("ab", "wxyz" * 6, "qr"))]
    half = torch.arange(len(texts)) % 2 == 0
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    types = control_types([texts[i] for i in order], half.nonzero()[:, 0], (~half).nonzero()[:, 0])
    assert types.rule == "last two words"
    # Every text holds the same long word: only the rare ones tell texts apart.
    texts = [f"q{i} everywhere k{i % 12} r{i} s{i}" for i in range(96)]
    assert control_types(texts, torch.arange(64), torch.arange(64, 96)).rule == "rarest recurring word"


def test_type_baseline_is_half_where_types_hold_both_labels():
    train, test = torch.arange(0, 200), torch.arange(200, 300)
    texts = [f"it is near w{i // 2 % 10}" for i in range(300)]
    types = control_types(texts, train, test)
    twins = type_baseline(types, torch.arange(300) % 2 == 0, train, test)
    assert twins.accuracy == pytest.approx(0.5)
    assert not twins.predicts
    told = type_baseline(types, torch.arange(300) // 2 % 10 < 5, train, test)
    assert told.accuracy == 1
    assert told.predicts
    assert math.isnan(type_baseline(types, torch.arange(300) / 3, train, test).accuracy)


def test_selectivity_interval_is_paired():
    """A probe that is right where the control is right has selectivity 0 with a narrow interval, whatever its accuracy."""
    g = torch.Generator().manual_seed(0)
    right = (torch.rand(2, 90, generator=g) < 0.8).float()
    groups = torch.arange(90) // 3
    weights = group_weights(groups, samples=300)
    value, ends = selectivity(right, right[None], weights, groups=30)
    assert value.tolist() == [0, 0]
    assert ends.low.tolist() == ends.high.tolist() == [0, 0]
    control = (torch.rand(3, 2, 90, generator=g) < 0.5).float()
    value, ends = selectivity(right, control, weights, groups=30)
    torch.testing.assert_close(value, (right - control.mean(0)).double().mean(1))
    assert (ends.low < value).all()
    assert (value < ends.high).all()


def test_real_statements_have_control_types(shared):
    files = sorted(shared.glob("**/cities.csv"))
    if not files:
        pytest.skip("needs the cities statements in the development data")
    texts = [line.split(",")[0] for line in files[0].read_text(encoding="utf-8").splitlines()[1:]]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))
    types = control_types(texts, order[: len(texts) * 7 // 10], order[len(texts) * 7 // 10 :])
    assert types.rule == "last word"
    assert types.usable.float().mean() > 0.8


@small
@given(seeds, st.sampled_from([0.2, 0.5]))
def test_control_labels_are_constant_per_type_balanced_and_random(seed, share):
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(25, (400,), generator=g)
    y = torch.rand(400, generator=g) < share
    labels = control_labels(ids, y, seeds=[seed, seed + 1, seed + 2])
    for kind in ids.unique():
        inside = labels[:, ids == kind]
        assert (inside == inside[:, :1]).all()
    assert (labels.float().mean(1) - y.float().mean()).abs().max() < 0.06
    assert not labels[0].equal(labels[1]) or not labels[0].equal(labels[2])
    classes = control_labels(ids, torch.randint(4, (400,), generator=g) + 3, seeds=[seed])
    assert set(classes.flatten().tolist()) == {3, 4, 5, 6}
    numbers = torch.randn(400, generator=g)
    assert torch.isin(control_labels(ids, numbers, seeds=[seed]), numbers).all()


def test_random_directions_are_unit_vectors_on_the_sphere():
    directions = random_directions(50, count=400, seed=1)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(400))
    assert directions.mean(0).abs().max() < 0.05


def test_many_groups_are_ordered_as_few():
    chances = torch.rand(3, permutation._PACKED_FROM + 5, generator=torch.Generator().manual_seed(0))
    chances[:, 7] = chances[:, 9]  # equal ones keep their order
    assert torch.equal(permutation._order_of_chances(chances), chances.argsort(dim=1, stable=True))


def test_permuted_labels_are_those_of_one_index(monkeypatch):
    y, groups = torch.arange(40) % 4 < 2, torch.arange(40) // 2
    permutations = permutation.group_permutations(y, groups, samples=100)
    monkeypatch.setattr(permutation, "_BLOCK", 120)
    assert torch.equal(permutation.permuted_labels(y, permutations), y[permutations.long()])
