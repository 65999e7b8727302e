"""Groups of texts that would leak from the training side of a split to the test side.

`derive_groups` serves files without a `group` column: rows of one pair, texts equal up to case and white space, and texts that share
their opening (the question of `Q: …? A: …`, the context of `context. continuation`). An opening that more than a fifth of the rows share
is a template, not a context. `group_by_keys` takes the keys from the caller.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

_OPENING = re.compile(r"[\t\n]|(?<=[.!?…])[\"')\]]*\s")


def derive_groups(texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[str]:
    """One group name per text; texts linked by any of the three rules, directly or through others, share a name."""
    openings = [opening_sentence(text) for text in texts]
    counts = Counter(filter(None, openings))
    template = max(5, 0.2 * len(texts))
    contexts = [start if start is not None and counts[start] <= template else None for start in openings]
    columns = [normalize_text(text) for text in texts], pairs or [None] * len(texts), contexts
    return [f"g{root}" for root in _component_roots(len(texts), _links_by_key(columns))]


def group_by_keys(texts: Sequence[str], *keys: Sequence[Hashable | None]) -> list[str]:
    """One group name per text; texts with an equal key in one column, directly or through others, share a name. None is not a key."""
    links = _links_by_key(([normalize_text(text) for text in texts], *keys))
    return [f"g{first}" for first in _first_members(_component_roots(len(texts), links))]


def near_duplicate_ids(texts: Sequence[str], share: float = 0.7) -> list[int]:
    """One number per text; texts whose sets of words overlap (Jaccard) by `share` or more, directly or through others, share it."""
    from sklearn.feature_extraction.text import CountVectorizer

    words = CountVectorizer(binary=True, token_pattern=r"(?u)\w+", dtype=np.int32).fit_transform(texts)
    size = np.asarray(words.sum(axis=1)).ravel()
    both = (words @ words.T).tocoo()
    close = both.data >= share * (size[both.row] + size[both.col] - both.data)
    links = zip(both.row[close].tolist(), both.col[close].tolist(), strict=True)
    return _first_members(_component_roots(len(texts), links))


def opposite_target_pairs(keys: Sequence[Hashable], targets: Sequence[bool]) -> list[str | None]:
    """The key as pair name where exactly two examples share it and differ in the target; else None."""
    by_key: dict[Hashable, list[bool]] = {}
    for key, target in zip(keys, targets, strict=True):
        by_key.setdefault(key, []).append(target)
    return [str(key) if sorted(by_key[key]) == [False, True] else None for key in keys]


def normalize_text(text: str) -> str:
    """The text without case and repeated white space."""
    return " ".join(text.casefold().split())


def opening_sentence(text: str) -> str | None:
    """The first sentence or line, if it has at least three words and is not the whole text."""
    text = text.strip()
    for match in _OPENING.finditer(text):
        start = normalize_text(text[: match.start()])
        if len(start.split()) >= 3:
            return start
    return None


def _links_by_key(columns: Sequence[Sequence[Hashable | None]]) -> list[tuple[int, int]]:
    """A link from each row to the first row with the same key in the same column."""
    first: dict[tuple[int, Hashable], int] = {}
    return [
        (i, first.setdefault((number, key), i))
        for i, row in enumerate(zip(*columns, strict=True))
        for number, key in enumerate(row)
        if key is not None
    ]


def _component_roots(n: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Union-find: for each of `n` nodes the root of its connected component."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in links:
        parent[root(i)] = root(j)
    return [root(i) for i in range(n)]


def _first_members(roots: Sequence[int]) -> list[int]:
    """For each node the first node of its component."""
    first: dict[int, int] = {}
    return [first.setdefault(root, i) for i, root in enumerate(roots)]
