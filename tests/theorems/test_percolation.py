"""Percolation of bipartite graphs, power laws of event times, and the collapse of curves: closed forms and other implementations."""

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import linregress, rankdata

from ontogeny.errors import BadInput
from ontogeny.metrics.reachability import accepted_share, valid_mass
from ontogeny.statistics import percolation
from ontogeny.statistics.curve_collapse import collapse_spread, fit_collapse
from ontogeny.statistics.power_laws import fit_power_law

small = settings(max_examples=15, deadline=None, derandomize=True)


def graph_of(seen: np.ndarray) -> "nx.Graph[int]":
    graph = nx.Graph()
    graph.add_nodes_from(range(sum(seen.shape)))
    graph.add_edges_from((int(e), len(seen) + int(k)) for e, k in np.argwhere(seen))
    return graph


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 99))
@small
def test_union_find_equals_networkx(entities: int, properties: int, seed: int) -> None:
    curve = percolation.percolation_curve(entities, properties, most=entities * properties, seed=seed)
    order = np.random.default_rng([seed, entities, properties]).choice(
        entities * properties, entities * properties, replace=False
    )
    for edges in (0, 1, entities, entities * properties):
        edges = min(edges, entities * properties)
        seen = np.zeros(entities * properties, dtype=bool)
        seen[order[:edges]] = True
        seen = seen.reshape(entities, properties)
        sizes = sorted(map(len, nx.connected_components(graph_of(seen))))
        assert curve.largest[0, edges] == pytest.approx(sizes[-1] / sum(seen.shape))
        assert percolation.largest_component_share(seen) == pytest.approx(sizes[-1] / sum(seen.shape))
        assert curve.susceptibility[0, edges] == pytest.approx(sum(s * s for s in sizes[:-1]) / sum(seen.shape))


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 0.6), st.integers(0, 99))
@small
def test_connected_pairs_are_those_within_a_path(entities: int, properties: int, share: float, seed: int) -> None:
    seen = np.random.default_rng(seed).random((entities, properties)) < share
    lengths = dict(nx.all_pairs_shortest_path_length(graph_of(seen)))
    distance = np.array([[lengths[e].get(entities + k, math.inf) for k in range(properties)] for e in range(entities)])
    for hops in (1, 3, 5):
        assert np.array_equal(percolation.connected_pairs(seen, hops=hops), distance <= hops)
    assert np.array_equal(percolation.connected_pairs(seen), np.isfinite(distance))


def test_giant_component_appears_at_the_square_root() -> None:
    """Its size is the fixed point 1 − exp(−cS) for equal sides, and the transition follows √(|E||K|)."""
    n = 1500
    curve = percolation.percolation_curve(n, n, most=2 * n, draws=2)
    assert curve.largest[:, n // 2].max() < 0.03
    for ratio in (1.5, 2.0):
        fixed = 0.5
        for _ in range(200):
            fixed = 1 - math.exp(-ratio * fixed)
        assert curve.largest[:, int(ratio * n)].mean() == pytest.approx(fixed, abs=0.02)
    sizes = (100, 400, 1600)
    transitions = [percolation.percolation_curve(100, k, draws=20).transition() for k in sizes]
    threshold = [percolation.percolation_threshold(100, k) for k in sizes]
    assert all(0.8 < t.mean() / m < 1.4 for t, m in zip(transitions, threshold, strict=True))
    fit = fit_power_law(np.array(sizes, float), np.array(transitions).T)
    assert fit.low < 0.5 < fit.high + 0.05
    assert fit.high - fit.low < 0.15


@given(st.floats(-2, 3), st.floats(0.1, 50), st.integers(0, 99))
@small
def test_power_law_is_recovered_and_equals_a_regression(exponent: float, factor: float, seed: int) -> None:
    sizes = np.array([1.0, 2.0, 5.0, 9.0])
    exact = fit_power_law(sizes, factor * sizes**exponent)
    assert exact.exponent == pytest.approx(exponent, abs=1e-9)
    assert exact.factor == pytest.approx(factor, rel=1e-6)
    rng = np.random.default_rng(seed)
    noisy = factor * sizes**exponent * np.exp(0.1 * rng.standard_normal(4))
    fit, line = fit_power_law(sizes, noisy), linregress(np.log(sizes), np.log(noisy))
    assert fit.exponent == pytest.approx(line.slope)
    assert (fit.high - fit.low) / 2 == pytest.approx(4.302653 * line.stderr, rel=1e-5)
    # Each seed has its own factor: that of a seed changes nothing.
    seeds = np.stack([noisy, 7 * noisy, noisy[::-1]])
    changed = seeds * np.array([1, 3, 0.2])[:, None]
    assert fit_power_law(sizes, changed).exponent == pytest.approx(fit_power_law(sizes, seeds).exponent)


def test_events_that_do_not_happen_are_censored() -> None:
    fit = fit_power_law(np.array([1.0, 2.0, 4.0]), np.array([[10, 20, np.inf], [np.nan, 0, 7]]))
    assert (fit.exponent, fit.points, fit.censored) == (pytest.approx(1), 2, 3)
    assert (fit.low, fit.high) == (-math.inf, math.inf)
    assert math.isnan(fit_power_law(np.array([1.0, 2.0]), np.array([5.0, np.inf])).exponent)
    with pytest.raises(BadInput, match="`sizes`"):
        fit_power_law(np.array([0.0, 2.0]), np.array([5.0, 6.0]))
    with pytest.raises(BadInput, match="`times`"):
        fit_power_law(np.array([1.0, 2.0]), np.array([5.0]))


def _curves(exponent: float, sizes: tuple[float, ...], jitter: float, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    steps = np.unique(np.rint(np.geomspace(1, 5000, 40)))
    late = [60 * size**exponent * np.exp(jitter * rng.standard_normal()) for size in sizes]
    return [(steps, 1 / (1 + (steps / at) ** -3.0)) for at in late]


def test_collapse_recovers_the_exponent_and_rejects_other_orders() -> None:
    sizes = (1.0, 2.0, 4.0, 8.0)
    for exponent in (0.5, 1.2):
        fit = fit_collapse([_curves(exponent, sizes, 0.05, s) for s in range(3)], sizes, samples=50)
        assert fit.low - 0.05 <= exponent <= fit.high + 0.05
        assert fit.spread < fit.unscaled / 3
        assert fit.p == pytest.approx(1 / 24)
    equal = fit_collapse([_curves(0.0, sizes, 0.05, 0)], sizes)
    assert abs(equal.exponent) < 0.15
    assert math.isnan(equal.low)
    # The steps' unit changes nothing; apart curves are apart, and never equal for lack of overlap.
    curves = _curves(0.5, sizes, 0.0, 0)
    scaled = [(7 * x, 2 * y - 1) for x, y in curves]
    assert collapse_spread(scaled, sizes, 0.5) == pytest.approx(collapse_spread(curves, sizes, 0.5), abs=1e-9)
    assert (
        collapse_spread(curves, sizes, 9.0) > collapse_spread(curves, sizes, 3.0) > collapse_spread(curves, sizes, 0.5)
    )


def test_collapse_rejects_nonsense() -> None:
    steps = np.arange(5.0)
    flat = [(steps, np.ones(5))] * 2
    assert math.isnan(collapse_spread(flat, (1.0, 2.0), 0.5))
    assert math.isnan(fit_collapse([flat], (1.0, 2.0)).exponent)
    for curves, sizes, words in (
        (flat, (1.0, 2.0, 3.0), "a size each"),
        (flat[:1], (1.0,), "at least two curves"),
        (flat, (1.0, -2.0), "`sizes` must be positive"),
        ([flat[0], (np.zeros(2), np.ones(2))], (1.0, 2.0), "two positive steps"),
    ):
        with pytest.raises(BadInput, match=words):
            collapse_spread(curves, sizes, 0.5)
    with pytest.raises(BadInput, match="at least one seed"):
        fit_collapse([], (1.0, 2.0))


@given(st.integers(0, 99))
@small
def test_reachability_equals_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, pairs = rng.standard_normal((6, 12)).round(1), rng.choice(3, size=(6, 12), p=(0.6, 0.2, 0.2))
    pairs[0, :3] = (0, 1, 2)
    table, values = torch.from_numpy(pairs), torch.from_numpy(scores)
    ranks = rankdata(-scores, axis=1)
    fits = ranks <= 1.5 * (pairs > 0).sum(1, keepdims=True)
    assert float(accepted_share(values, table)) == pytest.approx(fits[pairs == 1].mean())
    both = (pairs == 1).any(1) & (pairs == 0).any(1)
    chances = softmax(scores, axis=1)
    shares = [p[t == 1].sum() / p[t < 2].sum() for p, t in zip(chances[both], pairs[both], strict=True)]
    assert float(valid_mass(values, table)) == pytest.approx(np.mean(shares))


def test_reachability_of_a_memoriser_and_of_a_model_of_types() -> None:
    pairs = torch.tensor([[2, 1, 1, 0, 0, 0, 0, 0]] * 3)
    types = torch.where(pairs > 0, 5.0, -5.0)
    assert float(accepted_share(types, pairs)) == 1
    assert float(valid_mass(types, pairs)) > 0.99
    memory = torch.where(pairs == 2, 5.0, -5.0)
    assert float(accepted_share(memory, pairs)) == 0
    assert float(valid_mass(memory, pairs)) == pytest.approx(2 / 7)
    with pytest.raises(BadInput, match="`pairs` must be 0"):
        accepted_share(types, pairs + 1)
    with pytest.raises(BadInput, match="`slack`"):
        accepted_share(types, pairs, slack=0.5)


def test_graphs_reject_nonsense() -> None:
    for call, words in (
        (lambda: percolation.percolation_threshold(0, 5), "at least one node"),
        (lambda: percolation.percolation_curve(3, 3, most=10), "`most` must be 0 to 9"),
        (lambda: percolation.percolation_curve(3, 3, draws=0), "`draws`"),
        (lambda: percolation.connected_pairs(np.eye(2, dtype=bool), hops=2), "`hops` must be an odd"),
        (lambda: percolation.connected_share(np.full((2, 2), 3)), "`pairs` must be 0"),
    ):
        with pytest.raises(BadInput, match=words):
            call()
    assert math.isnan(percolation.connected_share(np.full((2, 2), 2)))
