"""Coherence of a token's neighbours: the share that is related to it by spelling, or by a class that is known.

The paper asks a knowledge graph (arXiv:2503.21073); offline, two tokens are related if they are the same but for case and space, share a
stem or an ending, or are both digits or both without letters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_STEM, _ENDING = 4, 4
"""Letters at the beginning or the end of two words that make them related."""
_STEM_SHARE = 0.6


@dataclass(frozen=True)
class _Spelling:
    """A token without case and outer spaces."""

    text: str
    kind: str
    """`digits`, `signs` for no letters at all, or empty."""

    @classmethod
    def of(cls, token: str) -> "_Spelling":
        text = token.strip().casefold()
        signs = not any(letter.isalnum() for letter in text)
        return cls(text, "digits" if text.isdigit() else "signs" if text and signs else "")

    def is_related(self, other: "_Spelling") -> bool:
        a, b = self.text, other.text
        if a == b or not a or not b:
            return a == b
        if self.kind or other.kind:
            return self.kind == other.kind
        shared = _common(a, b)
        if shared >= _STEM or (shared >= 3 and shared >= _STEM_SHARE * max(len(a), len(b))):
            return True
        return min(len(a), len(b)) > _ENDING and _common(a[::-1], b[::-1]) >= _ENDING


def are_related(one: str, other: str) -> bool:
    """Whether two tokens are related by their spelling."""
    return _Spelling.of(one).is_related(_Spelling.of(other))


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

    rows = list(zip(queries.tolist(), neighbours.tolist(), strict=True))
    if classes is not None:
        known = [classes.get(name, name) for name in names]
        return torch.tensor([sum(known[q] == known[n] for n in near) / len(near) for q, near in rows])
    places = {place for q, near in rows for place in (q, *near)}
    spelled = {place: _Spelling.of(names[place]) for place in places}
    return torch.tensor([sum(spelled[q].is_related(spelled[n]) for n in near) / len(near) for q, near in rows])


def _common(a: str, b: str) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count
