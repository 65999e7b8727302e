"""Groups where a file names none: what could be learned on one side of a split and recognised on the other.

Rows of one pair, texts that are equal up to case and white space, and texts that share their opening (the question of `Q: …? A: …`, the
context of `context. continuation`). An opening that more than a fifth of the rows share is a template, not a context.
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

_OPENING = re.compile(r"[\t\n]|(?<=[.!?…])[\"')\]]*\s")


def derive_groups(texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[str]:
    """One group name a text; texts joined by any of the three rules, also by way of others, have one name."""
    openings = [opening_sentence(text) for text in texts]
    common = Counter(filter(None, openings))
    template = max(5, 0.2 * len(texts))
    parent = list(range(len(texts)))
    first: dict[tuple[str, str], int] = {}
    for i, text in enumerate(texts):
        keys = [("text", normalize_text(text))]
        if pairs is not None and (pair := pairs[i]) is not None:
            keys.append(("pair", pair))
        if (start := openings[i]) is not None and common[start] <= template:
            keys.append(("opening", start))
        for key in keys:
            parent[_root(parent, i)] = _root(parent, first.setdefault(key, i))
    return [f"g{_root(parent, i)}" for i in range(len(texts))]


def normalize_text(text: str) -> str:
    """Without what a twin may differ in: case and white space."""
    return " ".join(text.casefold().split())


def opening_sentence(text: str) -> str | None:
    """The first sentence or line, if it has three words at least and something follows it."""
    text = text.strip()
    for match in _OPENING.finditer(text):
        start = normalize_text(text[: match.start()])
        if len(start.split()) >= 3:
            return start
    return None


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


def group_by_keys(texts: Sequence[str], *keys: Sequence[Hashable | None]) -> list[str]:
    """One group name a text: texts with an equal key of one kind, also by way of others, have one name. None is no key."""
    nodes: dict[tuple[int, Hashable], int] = {}
    edges = []
    for kind, column in enumerate(([normalize_text(text) for text in texts], *keys)):
        for i, key in enumerate(column):
            if key is not None:
                edges.append((i, nodes.setdefault((kind, key), len(texts) + len(nodes))))
    return [f"g{root}" for root in _component_roots(len(texts), len(texts) + len(nodes), edges)]


def near_duplicate_ids(texts: Sequence[str], share: float = 0.7) -> list[int]:
    """A number a text; texts whose sets of words overlap (Jaccard) by `share` or more, also by way of others, have the same."""
    from sklearn.feature_extraction.text import CountVectorizer

    words = CountVectorizer(binary=True, token_pattern=r"(?u)\w+", dtype=np.int32).fit_transform(texts)
    size = np.asarray(words.sum(axis=1)).ravel()
    both = (words @ words.T).tocoo()
    close = both.data >= share * (size[both.row] + size[both.col] - both.data)
    return _component_roots(len(texts), len(texts), list(zip(both.row[close], both.col[close], strict=True)))


def opposite_target_pairs(groups: Sequence[Hashable], targets: Sequence[bool]) -> list[str | None]:
    """A pair where exactly two examples share a key and differ in the target."""
    found: dict[Hashable, list[bool]] = {}
    for group, target in zip(groups, targets, strict=True):
        found.setdefault(group, []).append(target)
    return [str(group) if sorted(found[group]) == [False, True] else None for group in groups]


def _component_roots(n: int, nodes: int, edges: list[tuple[int, int]]) -> list[int]:
    """For each of the first `n` nodes the first of its component."""
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    graph = coo_matrix((np.ones(len(edges)), (rows, columns)), shape=(nodes, nodes))
    component = connected_components(graph, directed=False)[1][:n].tolist()
    first: dict[int, int] = {}
    return [first.setdefault(c, i) for i, c in enumerate(component)]
