"""Names of classes that may be misspellings: a rare one that differs from a frequent one in a letter is not a class of its own."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ontogeny.data.concept import Concept

_RARE_SHARE = 0.1
"""Size of a misspelt class in units of the class that was meant: typing slips are fewer than one in ten."""
_SHORTEST = 4
"""Letters of the shortest name in which a slip can be recognised: `cat` and `car` are words of their own."""
_LONG = 8
"""Letters of a name that may hold two slips."""
_OPPOSITES = ("a", "an", "de", "dis", "il", "im", "in", "ir", "mis", "no", "non", "not", "pre", "re", "un")
"""Beginnings that make another word: `moral` and `amoral` differ in one letter."""


def misspelt_classes(concept: Concept) -> list[str]:
    """Warnings of classes that are rare and nearly spelt as a frequent one; empty for numbers."""
    if concept.kind == "number" or not concept.classes:
        return []
    counts = Counter(concept.classes[int(example.target)] for example in concept.examples)
    return [
        f"the class {rare!r} ({counts[rare]} of {len(concept.examples)} examples) is spelt nearly as {meant!r} ({counts[meant]}) and "
        "counts as a class of its own: if it is a slip, correct the labels"
        for rare in concept.classes
        if (meant := _meant(rare, counts)) is not None
    ]


def _meant(rare: str, counts: Mapping[str, int]) -> str | None:
    near = [
        name
        for name, count in counts.items()
        if name != rare and 0 < counts[rare] <= _RARE_SHARE * count and _is_slip(rare.casefold(), name.casefold())
    ]
    return max(near, key=lambda name: counts[name], default=None)


def _is_slip(written: str, meant: str) -> bool:
    """Whether two words differ by one slip of the fingers, or two in a long word, none of them in a digit."""
    if min(len(written), len(meant)) < _SHORTEST or _digits(written) != _digits(meant):
        return False
    if any(
        longer == start + shorter for start in _OPPOSITES for longer, shorter in ((written, meant), (meant, written))
    ):
        return False
    return _slips(written, meant) <= (2 if len(meant) >= _LONG else 1)


def _digits(word: str) -> list[str]:
    return [letter for letter in word if letter.isdigit()]


def _slips(a: Sequence[str], b: Sequence[str]) -> int:
    """Letters to insert, leave out, replace, or swap with the next one, to turn a word into another (Damerau 1964)."""
    before, row = list[int](), list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        older, before, row = before, row, [i, *[0] * len(b)]
        for j, other in enumerate(b, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                row[j] = min(row[j], older[j - 2] + 1)
    return row[-1]
