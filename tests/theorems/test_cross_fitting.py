"""Cross-fitting: folds that share their computations equal separate fits, and its scores, variances and nulls equal their definitions."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import t as student_t
from torch import Tensor

from ontogeny import plugins
from ontogeny.linalg.moments import Moments, fold_moments
from ontogeny.linalg.principal_axes import PrincipalAxes
from ontogeny.measurements.refit_null import refit_null
from ontogeny.measurements.scores import few_of_class
from ontogeny.measurements.settings import TraceSettings, settings_for_key, settings_of_run
from ontogeny.metrics.separability import auroc, r2
from ontogeny.probes import FoldProbes, leace, training_masks
from ontogeny.statistics import cross_fitting
from ontogeny.statistics.bootstrap import group_weights, student_t_quantile, student_t_quantiles
from ontogeny.statistics.permutation import group_permutations
from ontogeny.statistics.splits import contiguous_split, cross_fit_folds


def drawn(n: int, d: int, *, gap: float = 0.6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2 == 0
    x = torch.randn(2, n, d, generator=g) * torch.linspace(2, 0.3, d) + gap * y[:, None] + 3
    return x, y, torch.arange(n) // 2


# --- folds ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
def test_every_group_is_in_one_fold_and_every_fold_has_all_classes(size: int) -> None:
    for count in range(4, 24):
        groups = torch.arange(count).repeat_interleave(size)
        y = groups % 2 == 0
        folds = cross_fit_folds(groups, y, "binary", seed=count)
        assert len(torch.stack([folds, groups]).unique(dim=1)[0]) == count
        assert 2 <= int(folds.max()) + 1 <= min(5, count // 2)
        for fold in folds.unique():
            assert y[folds == fold].any()
            assert not y[folds == fold].all()


def test_published_split_truncates() -> None:
    assert len(contiguous_split(1243).train) == 994  # .8 · 1243 = 994.4
    assert len(contiguous_split(1248).train) == 998  # .8 · 1248 = 998.4
    assert len(contiguous_split(1247).train) == 997  # .8 · 1247 = 997.6


# --- probes ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(160, 20), (60, 100)])
@pytest.mark.parametrize(("name", "within"), [("mass_mean", 1e-5), ("leace", 1e-4), ("pca", 0.02)])
def test_shared_folds_equal_separate_fits(name: str, within: float, n: int, d: int) -> None:
    x, y, groups = drawn(n, d)
    folds = cross_fit_folds(groups, y, "binary")
    module = plugins.load_plugin("probes", name)
    more = {"shrink": leace.SHRINK} if name == "leace" else {}
    alone = [module.fit(x[:, m], y[m], groups=groups[m], **more) for m in training_masks(folds)]
    expected = FoldProbes.of(module.fit(x, y, groups=groups), alone).held_out_scores(x, folds)
    given: list[dict[str, object]] = [{}]
    if n > d and name != "mass_mean":
        moments = Moments.of(x, y[:, None].double())
        given.append({"moments": moments, "rest": fold_moments(moments, x, y[:, None].double(), folds)})
    for known in given:
        found = module.fit_folds(x, y, folds, groups=groups, **known).held_out_scores(x, folds)
        assert (found - expected).abs().max() < within * expected.abs().max(), known.keys()


def test_strength_of_a_fold_does_not_depend_on_its_own_labels() -> None:
    x, y, groups = drawn(120, 30)
    folds = cross_fit_folds(groups, y, "binary")
    other = y.clone()
    other[folds == 1] = ~other[folds == 1]
    module = plugins.load_plugin("probes", "mass_mean")
    one, two = (module.fit_folds(x, labels, folds, groups=groups) for labels in (y, other))
    assert torch.equal(one.direction[:, :, 1], two.direction[:, :, 1])
    assert not torch.equal(one.direction[:, :, 0], two.direction[:, :, 0])
    logistic = plugins.load_plugin("probes", "logistic")
    scores = logistic.fit_folds(x, y, folds, groups=groups).held_out_scores(x, folds)[..., 0]
    separate = FoldProbes.of(
        logistic.fit(x, y, groups=groups),
        [logistic.fit(x[:, m], y[m], groups=groups[m]) for m in training_masks(folds)],
    ).held_out_scores(x, folds)[..., 0]
    areas = [cross_fitting.cross_fit_auroc(s, y, folds, groups).value for s in (scores, separate)]
    assert torch.allclose(areas[0], areas[1], atol=0.03)


def test_ridge_folds_solve_their_own_normal_equations() -> None:
    x, y, groups = drawn(90, 30)
    number = x[0, :, 3] + y.float()
    folds = cross_fit_folds(groups, number, "number")
    ridge = plugins.load_plugin("probes", "ridge")
    fits = ridge.fit_folds(x, number, folds, groups=groups)
    held_out = r2(fits.held_out_scores(x, folds)[..., 0], number)
    # By the hat matrix, at one strength for all folds.
    assert float(held_out[0]) == pytest.approx(float(fits.probe.facts["cv_score"][0]), abs=5e-3)
    assert held_out[0] > 0.9


# --- scores ---------------------------------------------------------------------------------------------------------------------


def test_score_compares_pairs_within_folds_only() -> None:
    g = torch.Generator().manual_seed(1)
    groups, y = torch.arange(40) // 2, torch.arange(40) % 2 == 0
    folds = cross_fit_folds(groups, y, "binary")
    scores = torch.randn(3, 40, generator=g).round(decimals=1)
    found = cross_fitting.cross_fit_auroc(scores, y, folds, groups).value
    each = torch.stack([auroc(scores[:, folds == f], y[folds == f]) for f in range(5)])
    pairs = torch.tensor([float((y[folds == f]).sum() * (~y[folds == f]).sum()) for f in range(5)])
    assert torch.allclose(found, (each * pairs[:, None]).sum(0) / pairs.sum())
    assert torch.allclose(cross_fitting.fold_aurocs(scores, y, folds), each)
    moved = scores.exp() + 100 * folds
    assert torch.equal(cross_fitting.cross_fit_auroc(moved, y, folds, groups).value, found)


@pytest.mark.parametrize("groups_drawn", [2, 9, 60])
def test_wins_by_ranks_equal_all_comparisons_with_ties_and_mixed_groups(groups_drawn: int) -> None:
    g = torch.Generator().manual_seed(groups_drawn)
    groups = torch.randint(groups_drawn, (60,), generator=g)
    folds, y = groups % 3, torch.rand(60, generator=g) < 0.5
    scores = torch.randn(4, 60, generator=g).mul(3).round()
    wins, pairs, inside, inside_pairs = cross_fitting._wins(scores, y, folds, groups)
    compared = (folds[:, None] == folds) & (y[:, None] != y)
    sign = torch.where(y, 1.0, -1.0)
    won = ((scores[:, :, None] - scores[:, None, :]) * sign[:, None]).sign().add(1).div(2).double()
    assert torch.equal(wins, (won * compared).sum(2))
    assert torch.equal(pairs, compared.sum(1).double())
    together = compared & (groups[:, None] == groups)
    assert torch.equal(inside, (won * together).sum(2))
    assert torch.equal(inside_pairs, together.sum(1).double())


def test_pooled_scores_of_different_fits_are_biased_and_those_within_folds_are_not() -> None:
    g = torch.Generator().manual_seed(0)
    y, groups = torch.arange(60) < 20, torch.arange(60)
    module = plugins.load_plugin("probes", "logistic")
    x = torch.randn(150, 60, 5, generator=g)
    folds = torch.arange(60) % 15  # folds of four examples with unequal class shares
    folds = folds[torch.randperm(60, generator=g)]
    u = module.fit_folds(x, y, folds, groups=groups).held_out_scores(x, folds)[..., 0]
    pooled, within = auroc(u, y), cross_fitting.cross_fit_auroc(u, y, folds, groups).value
    error = float(within.std()) / 150**0.5
    assert pooled.mean() < 0.5 - 3 * float(pooled.std()) / 150**0.5
    assert abs(float(within.mean()) - 0.5) < 3 * error


def test_influence_is_that_of_leaving_a_group_out() -> None:
    g = torch.Generator().manual_seed(0)
    groups, y = torch.arange(120) // 2, torch.arange(120) % 2 == 0
    folds = cross_fit_folds(groups, y, "binary")
    scores = torch.randn(1, 120, generator=g) + y.float()
    whole = cross_fitting.cross_fit_auroc(scores, y, folds, groups)
    by_group = whole.influence.new_zeros(60).index_add_(0, groups, whole.influence[0])
    without = []
    for group in range(60):
        rest = groups != group
        without.append(float(cross_fitting.cross_fit_auroc(scores[:, rest], y[rest], folds[rest], groups[rest]).value))
    left = torch.tensor(without, dtype=torch.float64)
    jackknife = 59 / 60 * (left - left.mean()).square().sum()
    found = cross_fitting.group_variance(whole.influence, groups, y)
    assert float(found.value[0]) == pytest.approx(float(jackknife), rel=0.1)
    assert torch.corrcoef(torch.stack([by_group, -left]))[0, 1] > 0.98


def test_resamples_have_the_spread_of_the_interval() -> None:
    g = torch.Generator().manual_seed(0)
    groups, y = torch.arange(200) // 2, torch.arange(200) % 2 == 0
    folds = cross_fit_folds(groups, y, "binary")
    scores = torch.randn(2, 200, generator=g) + y.float()
    score = cross_fitting.cross_fit_auroc(scores, y, folds, groups)
    variance = cross_fitting.auroc_variance(scores, score, y, folds, groups)
    share = cross_fitting.resample_share(variance, score, groups)
    drawn = cross_fitting.cross_fit_samples(score, group_weights(groups, samples=2000), share, share=True)
    ends = cross_fitting.cross_fit_interval(score.value, variance, torch.zeros(2), share=True)
    low, high = drawn.quantile(0.025, 0), drawn.quantile(0.975, 0)
    assert torch.allclose(high - low, ends.high - ends.low, rtol=0.1)


def test_mean_that_no_group_differs_from_has_an_interval_of_its_groups() -> None:
    values, groups = torch.tensor([[1.0, 1.0, 0.0] * 8]), torch.arange(24) // 3
    score = cross_fitting.cross_fit_mean(values)
    ends = cross_fitting.cross_fit_interval(
        score.value, cross_fitting.group_variance(score.influence, groups), torch.zeros(1), share=True
    )
    assert float(ends.low) == pytest.approx(2 / 3 * 0.025 ** (1 / 8))
    assert float(ends.high) == pytest.approx(1 - 1 / 3 * 0.025 ** (1 / 8))


@pytest.mark.parametrize(("positives", "negatives"), [(2, 2), (2, 3), (3, 3)])
def test_variance_of_test_groups_is_unbiased(positives: int, negatives: int) -> None:
    """Over all samples of three values, with ties, in one fold; DeLong's estimate is too large."""
    count = positives + negatives
    y, one_fold = torch.arange(count) < positives, torch.zeros(count, dtype=torch.long)
    draws = torch.cartesian_prod(*[torch.arange(3)] * count)
    odds = torch.where(y[:, None], torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.5, 0.3, 0.2])).double()
    weight = odds[torch.arange(count), draws].prod(1)
    score = cross_fitting.cross_fit_auroc(draws.float(), y, one_fold, torch.arange(count))
    area = score.value.double()
    truth = float(weight @ (area - weight @ area).square())
    pairs = cross_fitting.GroupPairs.of(y, one_fold, torch.arange(count))
    squares = score.influence.square().sum(1)
    unbiased = (squares - cross_fitting._interactions(draws.float(), area, pairs)) / pairs.disjoint
    assert float(weight @ unbiased) == pytest.approx(truth, rel=1e-6)
    usual = cross_fitting.group_variance(score.influence, torch.arange(count), y)
    assert float(weight @ usual.value) > 1.03 * truth


@settings(max_examples=25)
@given(data=st.data())
def test_interactions_and_pairs_equal_their_definitions(data: st.DataObject) -> None:
    n = data.draw(st.integers(4, 14))
    lists = st.lists(st.integers(0, 3), min_size=n, max_size=n)
    groups, folds, scores = (torch.tensor(data.draw(lists)) for _ in range(3))
    groups = groups + 4 * (folds % 2)  # no group in two folds
    folds, y = folds % 2, torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    compared = (folds[:, None] == folds) & y[:, None] & ~y
    assume(compared.any())
    values = scores[None].float()
    area = cross_fitting.cross_fit_auroc(values, y, folds, groups).value.double()
    pairs = cross_fitting.GroupPairs.of(y, folds, groups)
    won = ((scores[:, None] - scores).sign() + 1) / 2 - area
    member = (groups[:, None] == torch.arange(8)).double()
    between = member.T @ (won.double() * compared) @ member
    number = member.T @ compared.double() @ member
    across = (between + between.T).triu(1).square().sum() / compared.sum() ** 2
    assert float(cross_fitting._interactions(values, area, pairs)[0]) == pytest.approx(float(across), abs=1e-9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_fitting, "_COMPARED", 0)  # by sorting
        assert float(cross_fitting._interactions(values, area, pairs)[0]) == pytest.approx(float(across), abs=1e-9)
    at = compared.nonzero()
    apart = torch.stack([(groups[pair][:, None] != groups[at].flatten()).all(0).view(-1, 2).all(1) for pair in at])
    assert pairs.disjoint == pytest.approx(float(apart.double().mean()))
    assert pairs.inside == pytest.approx(float(number.diagonal().sum() / compared.sum()))


@settings(max_examples=15)
@given(st.integers(2, 20), st.integers(0, 1000))
def test_variance_of_an_auroc_is_finite_and_does_not_depend_on_units_or_the_name_of_a_class(
    size: int, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    groups = torch.arange(2 * size) // (1 + seed % 2)
    y, folds = torch.arange(2 * size) % 4 < 2, groups % 2
    assume(y.any() and not y.all())
    scores = torch.randn(3, 2 * size, generator=g) + (seed % 5) * y
    variances = [
        cross_fitting.auroc_variance(
            some, cross_fitting.cross_fit_auroc(some, labels, folds, groups), labels, folds, groups
        )
        for some, labels in ((scores, y), (3 * scores + 1, y), (-scores, ~y))
    ]
    assume(not cross_fitting.cross_fit_auroc(scores, y, folds, groups).value.isnan().any())
    assert all(v.value.isfinite().all() and (v.value >= 0).all() for v in variances)
    assert torch.allclose(variances[0].value, variances[1].value)
    assert torch.allclose(variances[0].value, variances[2].value)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 6, 20])
def test_t_quantiles_are_those_of_student(freedom: int) -> None:
    exact = float(student_t.ppf(0.975, freedom))
    assert student_t_quantile(freedom, 0.95) == pytest.approx(exact, rel=2e-3 if freedom > 4 else 1e-9)
    assert float(student_t_quantiles(torch.tensor([freedom + 0.5]), 0.95)) < exact


@pytest.mark.parametrize(("positives", "told"), [(1, True), (4, True), (5, False)])
def test_few_examples_of_a_class_give_no_interval(positives: int, told: bool) -> None:
    y = torch.arange(60) < positives
    assert (few_of_class(y) is not None) == told
    assert few_of_class(y.float()) is None


# --- null -----------------------------------------------------------------------------------------------------------------------


def test_null_refits_the_probe_under_every_permutation() -> None:
    x, y, groups = drawn(60, 90, gap=0.3)
    folds = cross_fit_folds(groups, y, "binary")
    permutations = group_permutations(y, groups, samples=20)
    module = plugins.load_plugin("probes", "mass_mean")
    null = refit_null("mass_mean", x, y, folds, permutations, basis=PrincipalAxes.of(x), strength=None)

    def score(labels: Tensor) -> Tensor:
        u = module.fit_folds(x, labels, folds, groups=groups).held_out_scores(x, folds)[..., 0]
        return cross_fitting.cross_fit_auroc(u, labels, folds, groups).value

    assert torch.allclose(null.observed.float(), score(y), atol=1e-6)
    by_hand = torch.stack([score(y[one]) for one in permutations])
    assert torch.allclose(null.maxima.float(), by_hand.amax(1), atol=1e-6)
    reached = (by_hand >= score(y) - 1e-6).sum(0)
    assert torch.allclose(null.p.float(), (1 + reached) / 21)


def test_equal_activations_are_at_chance_under_every_labelling() -> None:
    """Also where rows are equal in groups, as at the embedding of a few last tokens; equal scores count half."""
    x, y, groups = drawn(60, 12)
    x[0] = 3.7
    x[1] = x[1, torch.arange(60) % 3]
    folds = cross_fit_folds(groups, y, "binary")
    permutations = group_permutations(y, groups, samples=20)
    for method, strength in (("mass_mean", None), ("logistic", torch.ones(2))):
        null = refit_null(method, x, y, folds, permutations, basis=PrincipalAxes.of(x), strength=strength)
        assert float(null.observed[0]) == pytest.approx(0.5)
        assert float(null.std[0]) == pytest.approx(0, abs=1e-9)
        assert float(null.maxima.min()) < 0.6
        assert 0.2 < float(null.mean[1]) < 0.7
    module = plugins.load_plugin("probes", "mass_mean")
    u = module.fit_folds(x, y, folds, groups=groups).held_out_scores(x, folds)[1:, :, 0].round(decimals=4)
    expected = cross_fitting.cross_fit_auroc(u, y, folds, groups).value
    null = refit_null("mass_mean", x, y, folds, permutations, basis=PrincipalAxes.of(x), strength=None)
    assert float(null.observed[1]) == pytest.approx(float(expected[0]), abs=1e-6)


@pytest.mark.parametrize(("n", "d"), [(60, 12), (60, 90)])
def test_null_of_least_squares_equals_refits(n: int, d: int) -> None:
    x, _, groups = drawn(n, d)
    number = x[0, :, 2] + torch.randn(n, generator=torch.Generator().manual_seed(5))
    folds = cross_fit_folds(groups, number, "number")
    basis, penalty = PrincipalAxes.of(x), torch.tensor([30.0, 300.0])
    permutations = group_permutations(number, groups, samples=5)
    null = refit_null("ridge", x, number, folds, permutations, basis=basis, strength=penalty)
    z = basis.features.double()
    for b, labels in enumerate([number, *number[permutations]]):
        u = torch.zeros(2, n, dtype=torch.float64)
        for mask in training_masks(folds):
            rows = z[:, mask] - z[:, mask].mean(1, keepdim=True)
            target = labels[mask].double() - labels[mask].double().mean()
            inner = rows.mT @ rows + penalty[:, None, None] * torch.eye(z.shape[2])
            w = torch.linalg.solve(inner, (rows.mT @ target)[..., None])
            shifted = (z[:, ~mask] - z[:, mask].mean(1, keepdim=True)) @ w
            u[:, ~mask] = shifted[..., 0] + labels[mask].double().mean()
        expected = r2(u, labels.double())
        found = null.observed if b == 0 else null.maxima[b - 1 : b]
        assert torch.allclose(found, expected if b == 0 else expected.amax(0, keepdim=True), atol=1e-4)


@pytest.mark.parametrize(("n", "d"), [(24, 24), (32, 64), (60, 128)])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("method", ["logistic", "ridge"])
def test_null_of_a_weak_penalty_in_many_dimensions_is_finite(method: str, scale: float, n: int, d: int) -> None:
    x, y, groups = drawn(n, d)
    x[:, :, 0] *= scale
    x[1] *= 1e-4
    folds = cross_fit_folds(groups, y, "binary")
    permutations = group_permutations(y, groups, samples=20)
    strength = torch.full((2,), 1e8 if method == "logistic" else 1e-8)
    null = refit_null(method, x, y, folds, permutations, basis=PrincipalAxes.of(x), strength=strength)
    assert null.observed.isfinite().all()
    assert null.maxima.isfinite().all()
    assert (null.p > 0).all()


def test_fixed_scores_make_a_null_that_is_too_narrow() -> None:
    """Each pair of examples counts twice, so the variance of cross-fitted scores at chance is twice that of fixed scores."""
    g = torch.Generator().manual_seed(0)
    y, groups = torch.arange(80) % 2 == 0, torch.arange(80) // 2
    folds = cross_fit_folds(groups, y, "binary")
    x = torch.randn(30, 80, 60, generator=g)
    permutations = group_permutations(y, groups, samples=200)
    null = refit_null("mass_mean", x, y, folds, permutations, basis=PrincipalAxes.of(x), strength=None)
    module = plugins.load_plugin("probes", "mass_mean")
    u = module.fit_folds(x, y, folds, groups=groups).held_out_scores(x, folds)[..., 0]
    fixed = torch.stack([cross_fitting.cross_fit_auroc(u, y[p], folds, groups).value for p in permutations[:60]])
    ratio = float((null.std.square() / fixed.var(0)).mean())
    assert 1.6 < ratio < 2.5
    assert math.isclose(float(null.mean.mean()), 0.5, abs_tol=0.02)


# --- settings -------------------------------------------------------------------------------------------------------------------


def test_settings_of_an_earlier_run_mean_one_split_and_keep_their_key() -> None:
    single = settings_for_key(TraceSettings(protocol="single-split"))
    assert single["protocol"] == "default"
    assert "folds" not in single
    assert settings_of_run({"protocol": "default"})["protocol"] == "single-split"
    assert settings_of_run({})["protocol"] == "single-split"
    assert settings_for_key(TraceSettings(protocol="cross-fit")) != single
    four = TraceSettings(protocol="cross-fit", folds=4)
    assert settings_for_key(four) != settings_for_key(TraceSettings(protocol="cross-fit"))
