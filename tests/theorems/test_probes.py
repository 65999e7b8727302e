"""Properties of the probes, each with a case in which it could fail."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ontogeny import plugins
from ontogeny.errors import BadInput
from ontogeny.linalg.logistic_solver import is_factorable
from ontogeny.linalg.moments import Moments
from ontogeny.linalg.principal_axes import PrincipalAxes
from ontogeny.metrics.separability import accuracy, auroc
from ontogeny.probes import leace as leace_fit
from ontogeny.probes import logistic, mass_mean, pca
from ontogeny.probes.leace import LeaceFitter, leace
from ontogeny.statistics.splits import balanced_folds

small = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)


def planted(seed: int, *, n: int = 500, d: int = 10, share: float = 0.3, gap: float = 4.0) -> tuple[Tensor, Tensor]:
    """Two classes under anisotropic, correlated noise with a direction larger than the gap, at two sites."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(2, d, d, generator=g) * torch.linspace(0.3, 3, d)
    y = torch.rand(n, generator=g) < share
    shift = torch.nn.functional.normalize(torch.randn(2, 1, d, generator=g), dim=2) @ mix
    return 3 + torch.randn(2, n, d, generator=g) @ mix + gap * y[None, :, None] * shift, y


def column(y: Tensor) -> Tensor:
    return y[:, None].double()


# --- erasure --------------------------------------------------------------------------------------------------------------------


@small
@given(seed=seeds)
def test_erased_concept_cannot_be_read(seed: int) -> None:
    x, y = planted(seed, n=1000)
    train, test = torch.arange(600), torch.arange(600, 1000)
    eraser = leace(x[:, train], column(y[train]))

    def held_out(x: Tensor) -> Tensor:
        return auroc(logistic.fit(x[:, train], y[train], groups=train).scores(x[:, test])[..., 0], y[test])

    assert (held_out(x) > 0.9).all()
    assert ((held_out(eraser(x)) - 0.5).abs() < 0.15).all()
    # On the rows it was fitted to, no linear probe does better than the class shares, however weak its penalty.
    erased = eraser(x[:, train])
    again = logistic.refit(erased, y[train][None], torch.full((2,), 100.0))
    assert (again.scores(erased)[..., 0].std(1) < 0.02).all()


@small
@given(seed=seeds)
def test_erasure_is_idempotent_and_keeps_the_mean(seed: int) -> None:
    x, y = planted(seed)
    eraser = leace(x, column(y))
    once = eraser(x)
    assert torch.allclose(eraser(once), once, atol=1e-3)
    assert torch.allclose(once.mean(1), x.mean(1), atol=1e-3)
    assert (x[:, y].mean(1) - x[:, ~y].mean(1)).norm(dim=1).min() > 0.1
    assert (once[:, y].mean(1) - once[:, ~y].mean(1)).norm(dim=1).max() < 1e-3
    assert torch.linalg.matrix_rank((x - once).double(), rtol=1e-4).max() == 1


@small
@given(seed=seeds)
def test_erasure_is_the_smallest_edit(seed: int) -> None:
    x, y = planted(seed)
    centred = x - x.mean(1, keepdim=True)
    least = (leace(x, column(y))(x) - x).square().sum((1, 2))
    u = mass_mean.fit(x, y, groups=torch.arange(len(y))).direction
    orthogonal = ((centred @ u) @ u.mT).square().sum((1, 2))
    shrunk = (leace(x, column(y), shrink=0.5)(x) - x).square().sum((1, 2))
    assert (least <= orthogonal * (1 + 1e-5)).all()
    assert (least <= shrunk * (1 + 1e-5)).all()
    assert (least < 0.9 * orthogonal).any(), "the noise was isotropic: the comparison could not fail"


def test_shrunk_covariance_and_few_examples_erase_exactly() -> None:
    x, y = planted(3, n=30, d=50)
    for eraser in (leace(x, column(y)), leace(x, column(y), shrink=0.1)):
        once = eraser(x)
        assert (once[:, y].mean(1) - once[:, ~y].mean(1)).norm(dim=1).max() < 1e-3 * x.norm(dim=2).mean()
        assert once.isfinite().all()


def test_several_classes_are_erased_together_and_by_streaming() -> None:
    g = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (600,), generator=g)
    x = 2 * torch.randn(2, 3, 8, generator=g)[:, label] + torch.randn(2, 600, 8, generator=g)
    z = torch.nn.functional.one_hot(label, 3).double()
    batch = leace(x, z)
    streamed = LeaceFitter().update(x[:, :200], z[:200]).update(x[:, 200:], z[200:]).eraser
    assert torch.allclose(batch(x), streamed(x), atol=1e-4)
    means = torch.stack([batch(x)[:, label == c].mean(1) for c in range(3)])
    assert (means - means.mean(0)).abs().max() < 1e-3
    assert torch.linalg.matrix_rank((x - batch(x)).double(), rtol=1e-4).tolist() == [2, 2]


def test_leace_probe_matches_the_eraser() -> None:
    x, y = planted(1)
    fitted = leace_fit.fit(x, y, groups=torch.arange(len(y)))
    scores = fitted.scores(x)
    by_hand = x - (scores - scores.mean(1, keepdim=True)) @ fitted.facts["removed"].mT
    assert torch.allclose(by_hand, leace(x, column(y))(x), atol=1e-3)
    assert (accuracy(scores, y) > 0.85).all()


# --- mass-mean and pairs --------------------------------------------------------------------------------------------------------


@small
@given(seed=seeds)
def test_steering_vector_lengths_are_in_activation_units(seed: int) -> None:
    x, y = planted(seed)
    fitted = mass_mean.fit(x, y, groups=torch.arange(len(y)))
    projection = (x @ fitted.direction)[..., 0]
    assert torch.allclose(mass_mean.steering_vector(fitted, "unit").norm(dim=1), torch.ones(2, 1), atol=1e-5)
    assert torch.allclose(mass_mean.steering_vector(fitted, "std").norm(dim=1)[:, 0], projection.std(1), rtol=1e-3)
    difference = x[:, y].mean(1) - x[:, ~y].mean(1)
    assert torch.allclose(mass_mean.steering_vector(fitted, "gap")[..., 0], difference, rtol=1e-3, atol=1e-4)
    middle = (fitted.scores(x)[:, y].mean(1) + fitted.scores(x)[:, ~y].mean(1)) / 2
    assert middle.abs().max() < 1e-3
    with pytest.raises(BadInput, match="unit, std or gap"):
        mass_mean.steering_vector(fitted, "sigma")


def test_pairs_cancel_shared_variation_in_any_order() -> None:
    g = torch.Generator().manual_seed(0)
    shared = 10 * torch.randn(1, 200, 8, generator=g).repeat_interleave(2, 1)
    y = torch.arange(400) % 2 == 0
    shift = torch.randn(8, generator=g)
    x = shared + 0.1 * torch.randn(1, 400, 8, generator=g) + y[:, None] * shift
    pairs = torch.arange(400) // 2
    paired = pca.fit(x, y, groups=pairs, pairs=pairs)
    alone = pca.fit(x, y, groups=pairs)
    assert torch.cosine_similarity(paired.direction[0, :, 0], shift, dim=0) > 0.99
    assert torch.cosine_similarity(alone.direction[0, :, 0], shift, dim=0).abs() < 0.9, (
        "without pairs the noise is larger"
    )
    some = torch.where(pairs < 150, pairs, -1)
    assert torch.cosine_similarity(pca.fit(x, y, groups=pairs, pairs=some).direction[0, :, 0], shift, dim=0) > 0.99
    with pytest.raises(BadInput, match="no pair has both"):
        pca.fit(x, y, groups=pairs, pairs=torch.arange(400))


@pytest.mark.parametrize("second", [0.1, 0.9, 1 - 1e-4, 1 - 1e-7])
@pytest.mark.parametrize(("n", "d"), [(400, 30), (40, 300)])
def test_first_axis_matches_the_singular_vectors(n: int, d: int, second: float) -> None:
    g = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(size, 20, generator=g, dtype=torch.float64))[0] for size in (n, d))
    u -= u.mean(0)
    u = torch.linalg.qr(u)[0] @ torch.linalg.qr(torch.randn(20, 20, generator=g, dtype=torch.float64))[0]
    lengths = torch.tensor([1.0, second, *torch.linspace(0.8, 0.01, 18).tolist()]).double()
    x = torch.stack([(u * lengths) @ v.T, torch.zeros(n, d, dtype=torch.float64)])
    y = torch.arange(n) % 2 == 0
    for moments in (None, Moments.of(x, column(y))):
        found = pca.fit(x, y, groups=torch.arange(n), moments=moments)
        axis = found.direction[0, :, 0]
        # Two axes of nearly one length: the plane is known, and the first within it as far as their gap allows.
        assert torch.linalg.norm(v[:, :2].T @ axis) == pytest.approx(1, abs=1e-9)
        assert abs(v[:, 0] @ axis) == pytest.approx(1, abs=1e-9)
        assert found.facts["share"][0] == pytest.approx(1 / float(lengths.square().sum()), rel=1e-9)
        assert found.direction[1].isnan().all()


@pytest.mark.parametrize(
    "name", [n for n in plugins.list_plugins("probes") if "binary" in plugins.load_plugin("probes", n).targets]
)
def test_swapped_labels_reverse_the_direction(name: str) -> None:
    x, y = planted(2)
    fit = plugins.load_plugin("probes", name).fit
    one, other = fit(x, y, groups=torch.arange(500)), fit(x, ~y, groups=torch.arange(500))
    assert torch.allclose(one.direction, -other.direction, rtol=1e-3, atol=1e-4 * float(one.direction.abs().max()))


# --- logistic -------------------------------------------------------------------------------------------------------------------


def test_separable_activations_give_a_finite_probe() -> None:
    y = torch.arange(60) % 2 == 0
    x = torch.randn(3, 60, 100, generator=torch.Generator().manual_seed(0)) + 100 * y[None, :, None]
    fitted = logistic.fit(x, y, groups=torch.arange(60))
    assert fitted.direction.isfinite().all()
    assert (accuracy(fitted.scores(x), y) == 1).all()
    assert (fitted.facts["cv_score"] == 1).all()
    strong = logistic.refit(x, y[None], torch.full((3,), 1e6))
    assert strong.direction.isfinite().all()


def test_near_copies_do_not_cross_the_folds() -> None:
    """Random labels with near copies of each example: only folds by group show that nothing was learned."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 150, 400, generator=g).repeat_interleave(2, 1) + 0.01 * torch.randn(1, 300, 400, generator=g)
    y = (torch.rand(150, generator=g) < 0.5).repeat_interleave(2)
    by_row = logistic.fit(x, y, groups=torch.arange(300)).facts["cv_score"]
    by_group = logistic.fit(x, y, groups=torch.arange(300) // 2).facts["cv_score"]
    assert by_row > 0.75
    assert by_group < 0.62


@small
@given(seed=seeds, groups=st.integers(2, 40), folds=st.integers(2, 5))
def test_folds_keep_groups_whole_and_are_as_many_as_possible(seed: int, groups: int, folds: int) -> None:
    g = torch.Generator().manual_seed(seed)
    group = torch.randint(0, groups, (80,), generator=g)
    y = (torch.rand(80, generator=g) < 0.4).float()
    fold, count = balanced_folds(group, y, folds=folds, seed=seed)
    assert count == min(folds, len(group.unique()))
    assert len(torch.stack([group, fold]).unique(dim=1)[0]) == len(group.unique())
    assert sorted(fold.unique().tolist()) == list(range(count))
    order = torch.randperm(80, generator=g)
    assert torch.equal(balanced_folds(group[order], y[order], folds=folds, seed=seed)[0], fold[order])


def test_single_group_gives_a_fit_without_a_score() -> None:
    x, y = planted(0)
    fitted = logistic.fit(x, y, groups=torch.zeros(500).long())
    assert fitted.facts["cv_score"].isnan().all()
    assert (auroc(fitted.scores(x)[..., 0], y) > 0.9).all()
    assert logistic.fit(x, y, groups=y.long()).facts["cv_score"].isnan().all()


@small
@given(seed=seeds)
def test_many_label_sets_equal_single_fits(seed: int) -> None:
    x, y = planted(seed, n=200)
    g = torch.Generator().manual_seed(seed)
    other = torch.rand(3, 200, generator=g) < 0.5
    labels = torch.cat([y[None], other, torch.zeros(1, 200, dtype=torch.bool)])
    fitted = logistic.fit(x, y, groups=torch.arange(200))
    strength = fitted.facts["strength"]
    together = logistic.refit(x, labels, strength, tolerance=1e-5)
    assert torch.allclose(
        together.direction[..., :1], fitted.direction, rtol=1e-2, atol=1e-3 * float(fitted.direction.abs().max())
    )
    alone = logistic.refit(x, labels[1:2], strength, tolerance=1e-5)
    assert torch.allclose(together.scores(x)[..., 1:2], alone.scores(x), atol=1e-3)
    assert together.direction[..., 4].isnan().all(), "one class has no answer"
    weight = torch.randint(0, 3, (1, 200), generator=g).float()
    weighted = logistic.refit(x, y[None], strength, weight=weight, tolerance=1e-5)
    rough = logistic.refit(x, y[None], strength)
    assert not torch.allclose(weighted.direction, rough.direction, rtol=1e-2)
    assert torch.allclose(
        rough.scores(x)[..., 0], fitted.scores(x)[..., 0], atol=0.05 * float(fitted.scores(x).std()) + 1e-3
    )


@small
@given(seed=seeds, strength=st.sampled_from([1e-4, 1e-2, 1.0, 1e2]))
def test_one_label_set_is_solved_as_well_without_principal_axes(seed: int, strength: float) -> None:
    """Also at the rough tolerance and with weighted examples."""
    x, y = planted(seed, n=200)
    strengths = torch.full((2,), strength)
    axes, weight = (
        PrincipalAxes.of(x),
        torch.randint(0, 3, (1, 200), generator=torch.Generator().manual_seed(seed)).float(),
    )
    for omega in (None, weight):
        exact = logistic.refit_prepared(
            PrincipalAxes.of(x.double()), y[None], strengths.double(), weight=omega, tolerance=1e-8
        )
        exact = exact.scores(x.double())
        for tolerance in (1e-3, 1e-5):
            by_axes = logistic.refit_prepared(axes, y[None], strengths, weight=omega, tolerance=tolerance).scores(x)
            found = logistic.refit(x, y[None], strengths, weight=omega, tolerance=tolerance).scores(x)
            off, allowed = (found - exact).abs().amax(), (by_axes - exact).abs().amax()
            assert off <= 2 * allowed + 10 * tolerance * exact.abs().amax(), (off, allowed)


@pytest.mark.parametrize("seed", [58, 242346])
def test_one_label_set_at_the_largest_penalty(seed: int) -> None:
    test_one_label_set_is_solved_as_well_without_principal_axes.hypothesis.inner_test(seed=seed, strength=100.0)


def test_tiny_penalty_is_solved_in_principal_axes() -> None:
    x, y = planted(0, n=200)
    strengths = torch.full((2,), 1e7)
    assert not is_factorable(x, strengths)
    found, by_axes = (
        logistic.refit(x, y[None], strengths),
        logistic.refit_prepared(PrincipalAxes.of(x), y[None], strengths),
    )
    assert found.direction.isfinite().all()
    assert torch.equal(found.direction, by_axes.direction)


def test_standardised_probe_ignores_the_unit_of_a_feature() -> None:
    x, y = planted(5)
    units = torch.logspace(-2, 2, 10)
    plain = logistic.fit(x, y, groups=torch.arange(500)).scores(x)
    other = logistic.fit(x * units, y, groups=torch.arange(500)).scores(x * units)
    assert torch.allclose(plain, other, atol=1e-3 * float(plain.abs().max()))
    assert math.isfinite(float(plain.std()))
