"""Random draws that worlds share: even shares and invented names."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ontogeny.worlds._vocabulary import TokenIds


def balanced_kinds(rng: np.random.Generator, n: int, kinds: int) -> TokenIds:
    """A random kind for each of `n` items, all kinds equally often."""
    return rng.permutation(np.arange(n) % kinds)


def random_share(rng: np.random.Generator, n: int, part: float) -> NDArray[np.bool_]:
    """A random mask of exactly the share `part` of `n` items."""
    return rng.permutation(np.arange(n) < round(part * n))


def invent_names(rng: np.random.Generator, n: int, letters: Sequence[str]) -> tuple[str, ...]:
    """`n` different names, one letter from each of `letters`."""
    drawn = rng.permutation(int(np.prod([len(part) for part in letters])))[:n]
    places = np.unravel_index(drawn, [len(part) for part in letters])
    return tuple("".join(part[i] for part, i in zip(letters, at, strict=True)) for at in zip(*places, strict=True))
