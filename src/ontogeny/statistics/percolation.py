"""Percolation on bipartite graphs: the giant component of entities × properties as pairs are revealed, and the pairs that it connects.

Above m_c = √(|E||K|) edges a random bipartite graph has a giant component (arXiv:2408.12578). Curves over the number of edges come from one
pass of union–find over edges in random order (Newman & Ziff, arXiv:cond-mat/0101295), so that they are exact for each draw.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ontogeny.errors import BadInput

PairTable = Int[NDArray[np.int64], "entity property"]
"""Pairs of a world: 2 if it occurs, 1 if it is valid and does not occur, 0 if it is not valid."""
UNSEEN, SEEN = 1, 2


def percolation_threshold(entities: int, properties: int) -> float:
    """Edges from which on a random bipartite graph has a giant component: √(|E||K|), or p_c = 1/√(|E||K|) of all pairs.

    Raises:
        BadInput: a side without nodes.
    """
    _check_sides(entities, properties)
    return math.sqrt(entities * properties)


@dataclass(frozen=True, eq=False)
class PercolationCurve:
    """Largest component of a random bipartite graph after each revealed edge, one row per draw."""

    edges: Int[NDArray[np.int64], " edge"]
    """Number of distinct edges: 0, 1, 2, …"""
    largest: Float[NDArray[np.float64], "draw edge"]
    """Share of all nodes in the largest component."""
    susceptibility: Float[NDArray[np.float64], "draw edge"]
    """Mean size of the other components, by node: its peak is the transition of a finite graph."""

    def transition(self) -> Float[NDArray[np.float64], " draw"]:
        """Number of edges at the peak of the susceptibility in each draw."""
        peaks: NDArray[np.float64] = self.edges[self.susceptibility.argmax(1)].astype(np.float64)
        return peaks


def percolation_curve(
    entities: int, properties: int, *, most: int | None = None, draws: int = 1, seed: int = 0
) -> PercolationCurve:
    """Reveal random pairs one by one.

    Args:
        most: Number of pairs revealed; by default four times the threshold, at most all pairs.

    Raises:
        BadInput: a side without nodes, or more edges than pairs.
    """
    _check_sides(entities, properties)
    total = entities * properties
    last = min(total, math.ceil(4 * math.sqrt(total))) if most is None else most
    if not 0 <= last <= total or draws < 1:
        raise BadInput(f"`most` must be 0 to {total} edges and `draws` at least 1, got {most} and {draws}.")
    rng = np.random.default_rng([seed, entities, properties])
    largest, others = np.empty((2, draws, last + 1))
    for draw in range(draws):
        pairs = rng.choice(total, size=last, replace=False)
        one, two = np.divmod(pairs, properties)
        largest[draw], others[draw] = _union_find(entities + properties, one.tolist(), (two + entities).tolist())
    return PercolationCurve(np.arange(last + 1), largest, others)


def _union_find(nodes: int, left: list[int], right: list[int]) -> tuple[list[float], list[float]]:
    """After each edge: share of nodes in the largest component, and Σ size² / nodes over the others."""
    parent, size = list(range(nodes)), [1] * nodes
    biggest, squares = 1, nodes
    largest, others = [1 / nodes], [(nodes - 1) / nodes]
    for a, b in zip(left, right, strict=True):
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        if a != b:
            if size[a] < size[b]:
                a, b = b, a
            squares += 2 * size[a] * size[b]
            parent[b], size[a] = a, size[a] + size[b]
            biggest = max(biggest, size[a])
        largest.append(biggest / nodes)
        others.append((squares - biggest**2) / nodes)
    return largest, others


def component_labels(seen: Bool[NDArray[np.bool_], "entity property"]) -> Int[NDArray[np.int64], " node"]:
    """Number of the component of each entity, then of each property."""
    entities, properties = seen.shape
    one, two = np.nonzero(seen)
    nodes = entities + properties
    graph = coo_array((np.ones(len(one)), (one, two + entities)), shape=(nodes, nodes))
    labels: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def largest_component_share(seen: Bool[NDArray[np.bool_], "entity property"]) -> float:
    """Share of all entities and properties in the largest component."""
    _check_sides(*seen.shape)
    return float(np.bincount(component_labels(seen)).max() / sum(seen.shape))


def connected_pairs(
    seen: Bool[NDArray[np.bool_], "entity property"], *, hops: int | None = None
) -> Bool[NDArray[np.bool_], "entity property"]:
    """Pairs that a path of seen pairs connects, seen pairs included.

    Args:
        hops: Longest path in edges, an odd number; the pairs that (BBᵀ)ⁿB reaches have paths of 2n + 1 edges. None: paths of any length.

    Raises:
        BadInput: an even number of hops, or fewer than one.
    """
    if hops is None:
        labels = component_labels(seen)
        pairs: NDArray[np.bool_] = labels[: len(seen), None] == labels[None, len(seen) :]
        return pairs
    if hops < 1 or hops % 2 == 0:
        raise BadInput(f"`hops` must be an odd number of edges, from an entity to a property, got {hops}.")
    # 32-bit floats are exact here: products are set back to 0 and 1.
    edges = seen.astype(np.float32)
    reached = edges
    for _ in range(hops // 2):
        grown = ((reached @ edges.T @ edges) > 0) | (reached > 0)
        if np.array_equal(grown, reached > 0):
            break
        reached = grown.astype(np.float32)
    return reached > 0


def connected_share(pairs: PairTable, *, hops: int | None = None) -> float:
    """Share of the valid pairs that do not occur which a path of seen pairs connects; NaN without such pairs.

    Args:
        pairs: 2 for a pair that occurs, 1 for another valid one, 0 for an invalid one.
        hops: As in `connected_pairs`.

    Raises:
        BadInput: another number in the table.
    """
    if not np.isin(pairs, (0, UNSEEN, SEEN)).all():
        raise BadInput("`pairs` must be 0 (not valid), 1 (valid, unseen) or 2 (seen) for each pair: see PairTable.")
    unseen = pairs == UNSEEN
    return float(connected_pairs(pairs == SEEN, hops=hops)[unseen].mean()) if unseen.any() else math.nan


def _check_sides(entities: int, properties: int) -> None:
    if min(entities, properties) < 1:
        raise BadInput(
            f"a bipartite graph must have at least one node on each side, got {entities} and {properties}: add nodes."
        )
