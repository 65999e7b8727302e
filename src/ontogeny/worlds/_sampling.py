"""What every generated world draws: even shares, and names that nobody has heard before."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ontogeny.worlds._vocabulary import TokenIds


def balanced_kinds(rng: np.random.Generator, n: int, kinds: int) -> TokenIds:
    """A kind for each of `n`, all kinds equally often."""
    return rng.permutation(np.arange(n) % kinds)


def random_share(rng: np.random.Generator, n: int, part: float) -> NDArray[np.bool_]:
    """A random `part` of `n`, exactly."""
    return rng.permutation(np.arange(n) < round(part * n))


def invent_names(rng: np.random.Generator, n: int, letters: Sequence[str]) -> tuple[str, ...]:
    """`n` different names, one letter from each of `letters`."""
    drawn = rng.permutation(int(np.prod([len(part) for part in letters])))[:n]
    places = np.unravel_index(drawn, [len(part) for part in letters])
    return tuple("".join(part[i] for part, i in zip(letters, at, strict=True)) for at in zip(*places, strict=True))
