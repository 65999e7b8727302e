"""Groups where a file names none: what could be learned on one side of a split and recognised on the other.

Rows of one pair, texts that are equal up to case and white space, and texts that share their opening (the question of `Q: …? A: …`, the
context of `context. continuation`). An opening that more than a fifth of the rows share is a template, not a context.
"""

import re
from collections import Counter
from collections.abc import Sequence

_OPENING = re.compile(r"[\t\n]|(?<=[.!?…])[\"')\]]*\s")


def derive_groups(texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[str]:
    """One group name a text; texts joined by any of the three rules, also by way of others, have one name."""
    openings = [opening(text) for text in texts]
    common = Counter(filter(None, openings))
    template = max(5, 0.2 * len(texts))
    parent = list(range(len(texts)))
    first: dict[tuple[str, str], int] = {}
    for i, text in enumerate(texts):
        keys = [("text", normalised(text))]
        if pairs is not None and (pair := pairs[i]) is not None:
            keys.append(("pair", pair))
        if (start := openings[i]) is not None and common[start] <= template:
            keys.append(("opening", start))
        for key in keys:
            parent[_root(parent, i)] = _root(parent, first.setdefault(key, i))
    return [f"g{_root(parent, i)}" for i in range(len(texts))]


def normalised(text: str) -> str:
    """Without what a twin may differ in: case and white space."""
    return " ".join(text.casefold().split())


def opening(text: str) -> str | None:
    """The first sentence or line, if it has three words at least and something follows it."""
    text = text.strip()
    for match in _OPENING.finditer(text):
        start = normalised(text[: match.start()])
        if len(start.split()) >= 3:
            return start
    return None


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
