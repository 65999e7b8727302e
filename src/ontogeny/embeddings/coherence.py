"""Coherence of a token's neighbours: the share that is related to it by spelling, or by a class that is known.

The paper asks a knowledge graph (arXiv:2503.21073); offline, two tokens are related if they are the same but for case and space, share a
stem or an ending, or are both digits or both without letters.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

_STEM, _ENDING = 4, 4
"""Letters at the beginning or the end of two words that make them related."""
_STEM_SHARE = 0.6


def are_related(one: str, other: str) -> bool:
    """Whether two tokens are related by their spelling."""
    a, b = one.strip().casefold(), other.strip().casefold()
    if not a or not b:
        return a == b
    if a == b:
        return True
    kinds = (str.isdigit, lambda text: not any(letter.isalnum() for letter in text))
    if any(kind(a) and kind(b) for kind in kinds):
        return True
    shared = _common(a, b)
    if shared >= _STEM or (shared >= 3 and shared >= _STEM_SHARE * max(len(a), len(b))):
        return True
    return min(len(a), len(b)) > _ENDING and _common(a[::-1], b[::-1]) >= _ENDING


def neighbour_coherence(
    names: Sequence[str],
    queries: Int[Tensor, " query"],
    neighbours: Int[Tensor, "query k"],
    classes: Mapping[str, str] | None = None,
) -> Float[Tensor, " query"]:
    """Share of each token's neighbours that are related to it.

    Args:
        classes: Class of each token, where it is known; tokens of one class are related, and spelling does not count.
    """

    def related(one: str, other: str) -> bool:
        return are_related(one, other) if classes is None else classes.get(one, one) == classes.get(other, other)

    rows = zip(queries.tolist(), neighbours.tolist(), strict=True)
    return torch.tensor([sum(related(names[q], names[n]) for n in near) / len(near) for q, near in rows])


def _common(a: str, b: str) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count
