"""Geometry of embeddings: against references and closed forms, invariances, nulls, and vectors that cannot be compared."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.manifold._locally_linear import barycenter_weights
from sklearn.neighbors import NearestNeighbors

from ontogeny.embeddings import (
    ComparedTokens,
    GeometrySettings,
    ModelGeometry,
    are_related,
    compare_geometries,
    frequency_matched_order,
    gaussian_cloud,
    global_similarity,
    lle_weights,
    local_dimensions,
    nearest_neighbours,
    neighbour_overlap,
    space_geometry,
    two_nn_dimension,
    weight_cosines,
)
from ontogeny.embeddings import similarity as similarity_file
from ontogeny.errors import BadInput


def bent_cloud(dimensions: int) -> torch.Tensor:
    """400 vectors of some dimensions, bent into two more; one random stream gives the clouds of 2 and of 6."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2))
    x = rng.standard_normal((400, 6)) if dimensions == 6 else x
    return torch.tensor(np.hstack([x, np.sin(x[:, :1]), x[:, :1] * x[:, 1:2]]), dtype=torch.float32)


@pytest.mark.parametrize(("dimensions", "reference"), [(2, 1.9742939331668754), (6, 5.583159437025531)])
def test_two_nn_equals_scikit_dimension(dimensions: int, reference: float) -> None:
    """The reference is `skdim.id.TwoNN().fit(x).dimension_` of scikit-dimension 0.5.0."""
    x = bent_cloud(dimensions)
    _, distances = nearest_neighbours(x, torch.arange(len(x)), 2)
    measured = two_nn_dimension(distances)
    assert measured.value == pytest.approx(reference, abs=1e-3)
    assert measured.low < dimensions < measured.high


def test_lle_weights_equal_scikit_learn() -> None:
    x = bent_cloud(6)
    near, distances = nearest_neighbours(x, torch.arange(50), 8)
    far, reference = NearestNeighbors(n_neighbors=9).fit(x.numpy()).kneighbors(x[:50].numpy())
    assert np.array_equal(near.numpy(), reference[:, 1:])
    assert np.allclose(distances.numpy(), far[:, 1:], atol=1e-5)
    weights = lle_weights(x, torch.arange(50), near)
    wide = x.double().numpy()
    assert np.allclose(weights.numpy(), barycenter_weights(wide[:50], wide, near.numpy(), reg=1e-3), atol=1e-5)
    assert torch.allclose(weights.sum(1), torch.ones(50), atol=1e-5)


def test_global_similarity_equals_the_correlation_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, mixing = torch.randn(60, 5), torch.randn(5, 9)
    y, frequency = x @ mixing + 2 * torch.randn(60, 9) + 1, torch.randn(60).double()
    monkeypatch.setattr(similarity_file, "WORKING_BYTES", 4 * 60 * 9 * 7)  # blocks of seven rows
    above = np.triu_indices(60, 1)
    bins = (frequency.argsort().argsort() * 3 // 60).numpy()  # three bins of twenty tokens
    cell = np.sort(np.stack([bins[above[0]], bins[above[1]]]), 0)
    design = (3 * cell[0] + cell[1])[:, None] == np.arange(9)
    design = design[:, design.any(0)].astype(float)
    for centred in (False, True):
        units = [torch.nn.functional.normalize(m - m.mean(0) if centred else m, dim=1) for m in (x, y)]
        a, b = ((m @ m.T).double().numpy()[above] for m in units)
        measured = global_similarity(x, y, frequency, centred=centred)
        assert measured.pearson.value == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-5)
        residuals = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (a, b)]
        assert measured.partial is not None
        assert measured.partial.value == pytest.approx(np.corrcoef(*residuals)[0, 1], abs=1e-5)
        assert measured.pearson.influence.sum() == pytest.approx(0, abs=1e-6)


def test_interval_over_tokens_covers_the_similarity_of_all() -> None:
    """Samples of 80 of 3,000 tokens: their 95 % intervals cover the value of all in about 95 % of draws."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 6, generator=generator)
    y = x @ torch.randn(6, 8, generator=generator) + 2 * torch.randn(3000, 8, generator=generator)
    truth = global_similarity(x, y, centred=True).pearson.value
    covered = 0
    for draw in range(100):
        places = torch.randperm(3000, generator=torch.Generator().manual_seed(draw))[:80]
        low, high = global_similarity(x[places], y[places], centred=True).pearson.interval
        covered += low <= truth <= high
    assert covered >= 88


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100))
def test_measures_do_not_change_under_rotation_scale_and_translation(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(80, 6, generator=generator), torch.randn(80, 4, generator=generator)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    moved = scale * (x @ turn + torch.randn(6, generator=generator))
    before, after = (global_similarity(m, y, centred=True).pearson.value for m in (x, moved))
    assert before == pytest.approx(after, abs=1e-3)
    queries = torch.arange(20)
    (near, far), (moved_near, moved_far) = (nearest_neighbours(m, queries, 5) for m in (x, moved))
    assert torch.equal(near, moved_near)
    assert two_nn_dimension(far[:, :2]).value == pytest.approx(two_nn_dimension(moved_far[:, :2]).value, rel=1e-2)
    weights = [lle_weights(x, queries, near), lle_weights(moved, queries, moved_near)]
    assert weight_cosines(near, weights[0], moved_near, weights[1]).min() > 0.999
    assert torch.equal(local_dimensions(x, near), local_dimensions(moved, moved_near))


def test_local_dimension_counts_the_components_of_a_plane() -> None:
    plane = torch.randn(300, 3) @ torch.randn(3, 20)
    near, _ = nearest_neighbours(plane, torch.arange(40), 60)
    assert set(local_dimensions(plane, near).tolist()) <= {2, 3}
    cloud = gaussian_cloud(plane)
    near, _ = nearest_neighbours(cloud, torch.arange(40), 60)
    assert local_dimensions(cloud, near).min() > 10
    assert torch.linalg.matrix_rank(gaussian_cloud(plane, same_covariance=True), rtol=1e-4) == 3
    assert local_dimensions(torch.ones(5, 3), torch.tensor([[1, 2, 3]])).tolist() == [0]


def test_frequency_matched_order_keeps_frequencies_near() -> None:
    frequency = torch.randn(1000)
    order = frequency_matched_order(frequency, seed=1)
    assert sorted(order.tolist()) == list(range(1000))
    ranks = frequency.argsort().argsort()
    assert (ranks - ranks[order]).abs().max() < 20
    assert float((order == torch.arange(1000)).float().mean()) < 0.15


def tokens_of(count: int, *, known: bool = True) -> ComparedTokens:
    frequency = torch.randn(count, generator=torch.Generator().manual_seed(3)) if known else None
    return ComparedTokens(
        torch.arange(count), tuple(f"w{i}" for i in range(count)), frequency, "texts" if known else "none"
    )


def values_of(rows, metric: str, control: str | None = None, **coords: str) -> list[float]:
    inside = [r for r in rows if r.metric == metric and r.control == control]
    return [r.value for r in inside if all(r.coords.get(k) == v for k, v in coords.items()) and r.method != "partial"]


def test_frequency_alone_is_told_apart_from_shared_geometry() -> None:
    """Two models that only share how far rare tokens lie from frequent ones: similar, but no more than frequency-matched tokens are."""
    quick = GeometrySettings(tokens=300, local_tokens=100, dimension_neighbours=30, nulls=10)
    tokens = tokens_of(300)
    assert tokens.log_frequency is not None
    along, generator = tokens.log_frequency[:, None], torch.Generator().manual_seed(0)

    def model(*parts: torch.Tensor) -> ModelGeometry:
        noise = [part + 0.3 * torch.randn(part.shape, generator=generator) for part in parts]
        return ModelGeometry({"embedding": space_geometry(torch.cat(noise, 1), quick)}, {"unembedding": "no"}, None)

    shared = torch.randn(300, 6, generator=generator)
    own = [torch.randn(300, 6, generator=generator) for _ in range(2)]
    by_frequency = compare_geometries(
        model(4 * along, own[0]), model(4 * along, own[1]), tokens, None, quick, {}
    ).records
    by_tokens = compare_geometries(model(shared), model(shared), tokens, None, quick, {}).records
    measured = values_of(by_frequency, "embedding_similarity", form="centred", space="embedding")[0]
    matched = next(r for r in by_frequency if r.control == "frequency_matched" and r.coords.get("form") == "centred")
    assert measured > 0.4
    assert matched.value > 0.9 * measured
    partial = next(r for r in by_frequency if r.method == "partial" and r.coords.get("form") == "centred")
    assert abs(partial.value) < 0.4 * measured
    for metric in ("embedding_similarity", "local_similarity", "neighbour_overlap"):
        real = values_of(by_tokens, metric, space="embedding")[-1]
        nulls = [r.high for r in by_tokens if r.metric == metric and r.control]
        assert len(nulls) >= 2
        assert real > max(nulls) + 0.1
    reason = next(r for r in by_tokens if r.coords["space"] == "unembedding")
    assert (reason.n, reason.note) == (0, "no")


def test_zero_rows_are_left_out_and_unknown_frequencies_are_said() -> None:
    quick = GeometrySettings(tokens=100, local_tokens=50, dimension_neighbours=20, nulls=5)
    x = torch.randn(120, 8)
    x[3], x[7] = 0, torch.nan
    geometry = space_geometry(x, quick)
    assert geometry.usable.sum() == 98
    assert (geometry.near[3] == -1).all()
    assert not torch.isin(torch.tensor([3, 7]), geometry.near).any()
    model = ModelGeometry({"embedding": geometry}, {}, None)
    rows = compare_geometries(model, model, tokens_of(120, known=False), None, quick, {}).records
    whole = values_of(rows, "embedding_similarity", form="raw")
    assert whole == [pytest.approx(1)]
    assert all("give texts" in str(r.note) for r in rows if r.method == "partial")
    assert values_of(rows, "neighbour_overlap") == [1.0]


def test_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(BadInput, match="more tokens than the 10 neighbours that are sought, got 10"):
        GeometrySettings(dimension_neighbours=10, tokens=20).check_vocabulary(10)
    with pytest.raises(BadInput, match="below the number of tokens, got 5 of 5"):
        nearest_neighbours(torch.randn(5, 2), torch.arange(5), 5)
    with pytest.raises(BadInput, match="same tokens, at least 10, got 12 and 11"):
        global_similarity(torch.randn(12, 3), torch.randn(11, 3))
    with pytest.raises(BadInput, match="`neighbours` must be at least 2, got 1"):
        GeometrySettings(neighbours=1)
    assert np.isnan(two_nn_dimension(torch.zeros(20, 2)).value)
    assert np.isnan(global_similarity(torch.ones(12, 3), torch.randn(12, 3)).pearson.value)


def test_tokens_are_related_by_spelling() -> None:
    for one, other in ((" run", "Run"), ("running", "runner"), ("12", "7"), (",", "!?"), ("nation", "relation")):
        assert are_related(one, other), (one, other)
    for one, other in (("cat", "dog"), ("a", "7"), ("in", "ink")):
        assert not are_related(one, other), (one, other)
    assert float(neighbour_overlap(torch.tensor([[1, 2]]), torch.tensor([[2, 5]]))) == 0.5
