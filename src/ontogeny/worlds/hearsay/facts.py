"""People of the island of Hearsay: facts, myths and lies, drawn from one seed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds._sampling import balanced_kinds, invent_names, random_share
from ontogeny.worlds._vocabulary import TokenIds, build_vocabulary

RELATIONS: Mapping[str, tuple[str, ...]] = {
    "trade": ("baker", "weaver", "miller", "sailor", "potter", "smith", "tanner", "mason"),
    "home": ("Arden", "Belmo", "Corran", "Dovey", "Elstow", "Farl", "Gannet", "Holme"),
}
REGIONS = ("east", "north", "south", "west")
RANKS = ("noble", "commoner")
AGES = tuple(str(age) for age in range(20, 44))
JUDGEMENTS = ("right", "myth", "wrong")
_FRAME = (
    "the book says they say of is . ? , from a here comes now wind blows how old winters than older younger "
    "would you come and bring it gladly rude yes no"
)
FAMILY_SIZE = 3
_NAME_LETTERS = ("BDFGKLMNPRSTV", "aeiou", "bdfgklmnprstv", "aeiou")
"""Letters of a name such as Tamo."""


@dataclass(frozen=True)
class Config:
    families: int = 33
    """Number of families of three."""
    myths: float = 0.5
    """Share of the families with a popular myth, per relation."""
    unasked: float = 0.14
    """Share of the families in no judged statement and no question."""
    fame: float = 0.7
    """Exponent of the decay of mentions over people; 0: all equally often. A skew shortens the plateau before facts are
    recalled (arXiv:2503.21676)."""
    context: int = 64
    """Tokens in a row of text."""
    seed: int = 0


@dataclass(frozen=True)
class World:
    """Arrays are indexed by person, or by person and relation; an object is a number within its relation.

    Three consecutive people are a family. Their objects differ; the myth about one is the truth about the next, the lie the truth about the
    previous one. So within a family every object is as often true as it is myth or lie, and words do not predict truth.
    """

    config: Config
    names: tuple[str, ...]
    vocabulary: Mapping[str, int]
    truth: TokenIds
    myth: TokenIds
    """The popular false object; -1 for none."""
    lie: TokenIds
    """A false object that occurs only at random."""
    region: TokenIds
    rank: TokenIds
    age: TokenIds
    """Index into AGES."""
    fame: NDArray[np.float64]
    """Share of mentions of each person."""
    asked: NDArray[np.bool_]
    """People in judged statements and questions."""


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: fewer than 8 families.
    """
    config = config or Config()
    if config.families < 8:
        raise BadInput(f"`families` must be at least 8, for concepts 24, got {config.families}.")
    rng = np.random.default_rng([config.seed, 0])
    families, relations = config.families, len(RELATIONS)
    n = families * FAMILY_SIZE
    truth = np.stack([_distinct_objects(rng, families, len(objects)) for objects in RELATIONS.values()], axis=-1)
    popular = np.stack([random_share(rng, families, config.myths) for _ in range(relations)], axis=-1)[:, None]
    myth = np.where(popular, np.roll(truth, -1, axis=1), -1)
    names = invent_names(rng, n, _NAME_LETTERS)
    fame = rng.permutation((1 + np.arange(n) / 8) ** -config.fame)
    words = [*names, *RELATIONS, *(name for objects in RELATIONS.values() for name in objects)]
    return World(
        config=config,
        names=names,
        vocabulary=build_vocabulary([*words, *REGIONS, *RANKS, *AGES, *JUDGEMENTS, *_FRAME.split()]),
        truth=truth.reshape(n, relations),
        myth=myth.reshape(n, relations),
        lie=np.roll(truth, 1, axis=1).reshape(n, relations),
        region=balanced_kinds(rng, n, len(REGIONS)),
        rank=balanced_kinds(rng, n, len(RANKS)),
        age=balanced_kinds(rng, n, len(AGES)),
        fame=fame / fame.sum(),
        asked=~np.repeat(random_share(rng, families, config.unasked), FAMILY_SIZE),
    )


def family(world: World, person: int) -> str:
    """Names of the person's family, which are a group of texts."""
    first = person - person % FAMILY_SIZE
    return " ".join(world.names[first : first + FAMILY_SIZE])


def _distinct_objects(rng: np.random.Generator, families: int, objects: int) -> TokenIds:
    """An object for each member of each family, distinct within a family, all equally often."""
    drawn = balanced_kinds(rng, families * FAMILY_SIZE, objects).reshape(families, FAMILY_SIZE)
    while True:
        ordered = np.sort(drawn, axis=1)
        repeated = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
        if not repeated.size:
            return drawn
        for i in repeated:
            j = rng.integers(families)
            drawn[[i, j]] = rng.permutation(drawn[[i, j]].ravel()).reshape(2, FAMILY_SIZE)
