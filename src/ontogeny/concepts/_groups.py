"""Groups of examples that leak into each other: texts equal up to case and white space, with a common key, or near-copies."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ontogeny.concept_groups import normalised


def joined(texts: Sequence[str], *keys: Sequence[Hashable | None]) -> list[str]:
    """One group name a text: texts with an equal key of one kind, also by way of others, have one name. None is no key."""
    nodes: dict[tuple[int, Hashable], int] = {}
    edges = []
    for kind, column in enumerate(([normalised(text) for text in texts], *keys)):
        for i, key in enumerate(column):
            if key is not None:
                edges.append((i, nodes.setdefault((kind, key), len(texts) + len(nodes))))
    return [f"g{root}" for root in _roots(len(texts), len(texts) + len(nodes), edges)]


def near(texts: Sequence[str], share: float = 0.7) -> list[int]:
    """A number a text; texts whose sets of words overlap (Jaccard) by `share` or more, also by way of others, have the same."""
    from sklearn.feature_extraction.text import CountVectorizer

    words = CountVectorizer(binary=True, token_pattern=r"(?u)\w+", dtype=np.int32).fit_transform(texts)
    size = np.asarray(words.sum(axis=1)).ravel()
    both = (words @ words.T).tocoo()
    close = both.data >= share * (size[both.row] + size[both.col] - both.data)
    return _roots(len(texts), len(texts), list(zip(both.row[close], both.col[close], strict=True)))


def pairs(groups: Sequence[Hashable], targets: Sequence[bool]) -> list[str | None]:
    """A pair where exactly two examples share a key and differ in the target."""
    found: dict[Hashable, list[bool]] = {}
    for group, target in zip(groups, targets, strict=True):
        found.setdefault(group, []).append(target)
    return [str(group) if sorted(found[group]) == [False, True] else None for group in groups]


def _roots(n: int, nodes: int, edges: list[tuple[int, int]]) -> list[int]:
    """For each of the first `n` nodes the first of its component."""
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    graph = coo_matrix((np.ones(len(edges)), (rows, columns)), shape=(nodes, nodes))
    component = connected_components(graph, directed=False)[1][:n].tolist()
    first: dict[int, int] = {}
    return [first.setdefault(c, i) for i, c in enumerate(component)]
