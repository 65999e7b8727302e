"""Properties of the metrics: agreement with other implementations, closed forms, bounds."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.decomposition import PCA
from torch import Tensor

import ontogeny.metrics.dependence as module
from ontogeny.errors import BadInput
from ontogeny.metrics.dependence import KERNELS, centred_gram, dependence, dependence_by_kernel, hsic, nhsic, zscore
from ontogeny.metrics.geometry import effective_rank, geometry, participation_ratio, variance_share
from ontogeny.metrics.information import dependence_within_accuracy, nats_bound, nats_contributions
from ontogeny.metrics.separability import accuracy, auroc, fisher, macro_auroc, r2
from ontogeny.metrics.similarity import cosine, subspace_cosines, subspace_overlap

small = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 10**6)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@small
@given(
    scores=st.lists(st.integers(-3, 3), min_size=4, max_size=40),
    seed=seeds,
)
def test_auroc_matches_sklearn_with_many_ties(scores: list[int], seed: int) -> None:
    y = torch.rand(len(scores), generator=torch.Generator().manual_seed(seed)) < 0.5
    y[0], y[1] = True, False
    s = torch.tensor(scores).float()
    assert float(auroc(s, y)) == pytest.approx(sk.roc_auc_score(y, s), abs=1e-6)
    assert float(auroc(s, y) + auroc(-s, y)) == pytest.approx(1)
    assert auroc(s.expand(2, 3, -1), y).shape == (2, 3)


@small
@given(seed=seeds)
def test_separability_matches_sklearn_and_scipy(seed: int) -> None:
    s, y = rand(30, 3, seed=seed), torch.arange(30) % 3
    exact = np.mean([sk.roc_auc_score(y == c, s[:, c]) for c in range(3)])
    assert float(macro_auroc(s, y)) == pytest.approx(exact, abs=1e-6)
    assert float(accuracy(s, y)) == pytest.approx(sk.accuracy_score(y, s.argmax(1)))
    assert float(accuracy(s[:, :1], y == 0)) == pytest.approx(sk.accuracy_score(y == 0, s[:, 0] > 0))
    assert float(r2(s[:, 0], s[:, 1])) == pytest.approx(sk.r2_score(s[:, 1], s[:, 0]), rel=1e-4)
    t = scipy.stats.ttest_ind(s[y == 0, 0], s[y != 0, 0]).statistic
    assert float(fisher(s[:, 0], y == 0)) == pytest.approx(t**2 * (1 / 10 + 1 / 20), rel=1e-4)
    entropy = -sum(p * math.log(p) for p in (1 / 3, 1 / 3, 1 / 3))
    assert float(nats_bound(s, y)) == pytest.approx(entropy - sk.log_loss(y, s.double().softmax(1)), abs=1e-5)
    assert float(nats_contributions(s, y).mean()) == pytest.approx(float(nats_bound(s, y)), abs=1e-6)
    binary = math.log(3) / 3 + 2 / 3 * math.log(1.5)
    assert float(nats_bound(s[:, :1], y == 0)) == pytest.approx(
        binary - sk.log_loss(y == 0, s[:, 0].double().sigmoid()), abs=1e-5
    )


def test_nats_are_at_most_the_entropy_and_meet_fanos_bound() -> None:
    y = torch.arange(40) % 4
    sure = 50 * torch.nn.functional.one_hot(y, 4).float()
    assert float(nats_bound(sure, y)) == pytest.approx(math.log(4), abs=1e-5)
    # A calibrated binary channel meets Fano's bound for its accuracy.
    flip = torch.arange(1000) % 10 == 0
    truth = torch.arange(1000) % 20 < 10
    predicted = truth ^ flip
    scores = torch.where(predicted, 1.0, -1.0)[:, None] * math.log(9)
    fano = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert float(nats_bound(scores, truth)) == pytest.approx(fano, abs=1e-4)


# --- dependence -----------------------------------------------------------------------------------------------------------------


def reference(a: Tensor, b: Tensor, kernel: str) -> tuple[float, float]:
    """HSIC and normalised HSIC by their formulas, in float64."""

    def gram(z: Tensor) -> Tensor:
        z = z.double()
        square = (z[:, None] - z[None]).square().sum(2)
        d = z.shape[1]
        if kernel == "linear":
            return z @ z.T / d
        if kernel == "imq":
            return 2 * d / (2 * d + square)
        if kernel == "gaussian_50":
            return torch.exp(-square / (2 * 50.0**2 * d))
        values = square[square > 1e-20]
        return torch.exp(-square / (2 * values.median()))

    n = len(a)
    h = torch.eye(n).double() - 1 / n
    ka, kb = gram(a) @ h, gram(b) @ h
    c = 1e-5 * n * torch.eye(n).double()
    ra, rb = ka @ torch.linalg.inv(ka + c), kb @ torch.linalg.inv(kb + c)
    return float((ka @ kb).trace() / (n - 1) ** 2), float((ra @ rb).trace())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("label", ["binary", "classes", "number"])
def test_dependence_matches_the_formula(kernel: str, label: str) -> None:
    t = rand(3, 60, 10) * torch.arange(1, 11) + 4
    x = t[0] @ rand(10, 5, seed=1) + 0.1 * rand(60, 5, seed=2)
    cut = (t[0, :, 3] > 5).float()
    y = {
        "binary": cut[:, None],
        "classes": torch.stack([cut, 1 - cut, (x[:, 0] > 0).float()], 1),
        "number": t[0, :, 3:4],
    }[label]
    found = dependence(t, x, y, kernel)
    for site in range(3):
        z = zscore(t.double())[site]
        tx, ty = reference(z, zscore(x[None].double())[0], kernel), reference(z, y, kernel)
        for value, expected in zip(
            (found.hsic_tx, found.nhsic_tx, found.hsic_ty, found.nhsic_ty), (*tx, *ty), strict=True
        ):
            assert float(value[site]) == pytest.approx(expected, rel=1e-6)
    assert found.hsic_ty[0] > 1.3 * found.hsic_ty[1], "the site that holds the label must stand out"
    assert found.hsic_ty_shuffled is None


def test_hsic_and_nhsic_match_the_batched_dependence() -> None:
    t, x, y = rand(1, 40, 6), rand(40, 3, seed=1), (torch.arange(40) % 4 == 0).float()[:, None]
    found = dependence(t, x, y)
    z = zscore(t)[0]
    assert float(hsic(z, y)) == pytest.approx(float(found.hsic_ty[0]), rel=1e-6)
    assert float(nhsic(z, y)) == pytest.approx(float(found.nhsic_ty[0]), rel=1e-6)
    assert float(nhsic(z, zscore(x[None])[0])) == pytest.approx(float(found.nhsic_tx[0]), rel=1e-6)


@pytest.mark.parametrize(("rate", "itself", "cap"), [(0.5, 0.8264, 0.9091), (0.1, 0.6125, 0.7826)])
def test_nhsic_of_a_binary_label_meets_its_closed_form_cap(rate: float, itself: float, cap: float) -> None:
    y = (torch.arange(200) < 200 * rate).float()[:, None]
    assert float(nhsic(y, y)) == pytest.approx(itself, abs=2e-4)
    eigenvalue = 2 * rate * (1 - rate) * -math.expm1(-0.5 / 50**2)
    assert eigenvalue / (eigenvalue + 1e-5) == pytest.approx(cap, abs=2e-4)
    assert (eigenvalue / (eigenvalue + 1e-5)) ** 2 == pytest.approx(float(nhsic(y, y)), rel=1e-6)
    # The cap is reached when the activations are the label, many times over.
    t = torch.cat([y, 1 - y] * 4, 1)[None] + 1e-3 * rand(1, 200, 8)
    reached = float(dependence(t, rand(200, 2), y).nhsic_ty[0])
    assert 0.95 * cap < reached <= cap


def test_effective_dimension_at_the_papers_width_matches_the_principal_components() -> None:
    x = zscore(rand(1, 300, 4) @ torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5])) @ rand(4, 4, seed=5)).double()
    shares = variance_share(x, k=4)[0]
    expected = float((shares / (shares + 50.0**2 * 1e-5)).sum())
    found = float(dependence(x.float(), rand(300, 2), (torch.arange(300) % 2).float()[:, None]).effective_dimension[0])
    assert found == pytest.approx(expected, rel=0.02)


def test_centring_one_side_equals_centring_both() -> None:
    z, y = rand(50, 5).double(), (torch.arange(50) % 2).double()[:, None]
    assert float(nhsic(z, y)) == pytest.approx(reference(z, y, "gaussian_50")[1], rel=1e-9)
    gram = centred_gram(z, "gaussian_50")
    assert gram.sum(0).abs().max() < 1e-12


def test_shuffled_floor_matches_explicit_shuffling() -> None:
    g = torch.Generator().manual_seed(4)
    t, y = rand(2, 60, 5), (torch.arange(60) % 3 == 0).float()[:, None]
    orders = torch.stack([torch.randperm(60, generator=g) for _ in range(40)])
    found = dependence(t, rand(60, 3, seed=1), y, permutations=orders)
    one_by_one = [dependence(t, rand(60, 3, seed=1), y[order]) for order in orders]
    for name in ("hsic_ty", "nhsic_ty"):
        samples = torch.stack([getattr(one, name) for one in one_by_one])
        floor = getattr(found, f"{name}_shuffled")
        assert torch.allclose(floor.mean, samples.mean(0), rtol=1e-6)
        assert torch.allclose(floor.high, samples.quantile(0.975, dim=0), rtol=1e-6)
        assert (floor.high > floor.mean).all()


def test_constant_activations_or_labels_give_nan() -> None:
    t = rand(2, 20, 4)
    t[1] = 3.14159
    y = (torch.arange(20) % 2).float()[:, None]
    found = dependence(t, rand(20, 2), y, permutations=torch.arange(20)[None])
    for values in (found.hsic_tx, found.hsic_ty, found.nhsic_tx, found.nhsic_ty, found.effective_dimension):
        assert values.isnan().tolist() == [False, True]
    one_class = dependence(t, rand(20, 2), torch.ones(20, 1))
    assert one_class.hsic_ty.isnan().all()
    assert one_class.hsic_tx.isfinite().tolist() == [True, False]
    with pytest.raises(BadInput, match="did you mean gaussian_50"):
        dependence(t, rand(20, 2), y, "gausian_50")


# --- geometry, similarity, claims ------------------------------------------------------------------------------------------------


@small
@given(seed=seeds, n=st.sampled_from([12, 40]))
def test_geometry_matches_sklearn_and_numpy(seed: int, n: int) -> None:
    x = rand(2, n, 20, seed=seed) * torch.arange(1, 21) + 3
    found = geometry(x, k=5)
    for site in range(2):
        pca = PCA(n_components=5, svd_solver="full").fit(x[site].double().numpy())
        assert found.variance_share[site].numpy() == pytest.approx(pca.explained_variance_ratio_, rel=1e-6)
        centred = x[site].double() - x[site].double().mean(0)
        s = np.linalg.svd(centred.numpy(), compute_uv=False)
        s = s[s > 1e-9 * s[0]]
        assert float(found.participation_ratio[site]) == pytest.approx((s**2).sum() ** 2 / (s**4).sum(), rel=1e-6)
        p = s / s.sum()
        assert float(found.effective_rank[site]) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_line_has_one_dimension_and_ball_has_all() -> None:
    line = rand(1, 50, 1) * rand(8, seed=1)
    assert float(participation_ratio(line)) == pytest.approx(1, abs=1e-4)
    assert float(effective_rank(line)) == pytest.approx(1, abs=1e-2)
    ball = rand(1, 20000, 8)
    assert float(participation_ratio(ball)) == pytest.approx(8, rel=0.01)
    assert variance_share(line, k=12)[0, 8:].isnan().all(), "a component that does not exist has no share"


@small
@given(seed=seeds)
def test_subspace_cosines_match_scipy_angles(seed: int) -> None:
    a, b = rand(7, 2, seed=seed), rand(7, 3, seed=seed + 1)
    angles = np.sort(scipy.linalg.subspace_angles(a.double().numpy(), b.double().numpy()))
    assert subspace_cosines(a, b).numpy() == pytest.approx(np.cos(angles), abs=1e-5)
    assert float(subspace_overlap(a, a @ rand(2, 2, seed=seed + 2))) == pytest.approx(1, abs=1e-3)
    u, v = a[:, 0].numpy(), b[:, 0].numpy()
    expected = float(np.dot(u, v) / np.linalg.norm(u) / np.linalg.norm(v))
    assert float(cosine(a[:, 0], b[:, 0])) == pytest.approx(expected, abs=1e-6)
    assert float(cosine(1e-30 * a[:, 0], 1e30 * a[:, 0])) == pytest.approx(1)
    assert subspace_overlap(torch.stack([a[:, 0], a[:, 0]], 1), b).isnan()


def test_dependence_within_accuracy_can_hold_fail_or_be_unmeasured() -> None:
    low, high = torch.tensor([0.2, 0.5, math.nan]), torch.tensor([0.6, 0.7, 0.9])
    held = dependence_within_accuracy(low, high)
    assert (held.share, held.n) == (1.0, 2)
    assert held.verdict.startswith("held")
    failed = dependence_within_accuracy(high, torch.tensor([0.5, 0.8, 0.95]))
    assert failed.share == pytest.approx(2 / 3)
    assert failed.verdict.startswith("did not hold: in 1 of 3")
    absent = dependence_within_accuracy(torch.full((2,), math.nan), torch.ones(2))
    assert math.isnan(absent.share)
    assert absent.n == 0


@small
@given(seed=seeds, distinct=st.sampled_from([1, 2, 3, 30]), broken=st.booleans())
def test_median_distance_ignores_equal_examples(seed: int, distinct: int, broken: bool) -> None:
    points = rand(distinct, 3, seed=seed).double()[
        torch.randint(distinct, (30,), generator=torch.Generator().manual_seed(seed))
    ]
    square = torch.cdist(points, points).square()
    if broken:
        square[3, 5] = math.nan
    found = module._median(square, points.square().sum(1))
    wanted = square[square > 1e-12 * points.square().sum(1).amax()].median()
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    assert bool(found.isnan()) == (distinct == 1)


@pytest.mark.parametrize("kernels", [("gaussian_50",), ("gaussian_50", "gaussian_median")])
def test_float32_is_exact_for_many_examples(kernels, monkeypatch):
    torch.manual_seed(0)
    y = torch.arange(400) % 3 == 0
    scale = torch.logspace(0, -3, 48)
    t = torch.randn(3, 400, 48) * scale + y[:, None] * torch.randn(3, 1, 48)
    x = torch.randn(400, 20) + t[0, :, :20]
    fast = dependence_by_kernel(t, x, y[:, None].float(), kernels)["gaussian_50"]
    monkeypatch.setattr(module, "_MIN_EXAMPLES_SINGLE", 10**9)
    exact = dependence_by_kernel(t, x, y[:, None].float(), kernels)["gaussian_50"]
    for name in ("hsic_tx", "hsic_ty", "nhsic_tx", "nhsic_ty", "effective_dimension"):
        ours, theirs = getattr(fast, name), getattr(exact, name)
        assert not torch.equal(ours, theirs), name  # otherwise a number is compared with itself
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
