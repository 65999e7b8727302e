"""Words and facts of the typed sentences: entities and values by type, verbs by pair of types, and the pairs that occur."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from ontogeny.errors import BadInput, unknown_name
from ontogeny.worlds._sampling import invent_names
from ontogeny.worlds._vocabulary import SPECIAL, build_vocabulary

Structure = Literal["typed", "shuffled", "private", "isolated"]
"""typed: an entity occurs with values of its own type. shuffled: values, verbs and objects go with any entity. private: no value occurs
with two entities, so that seen pairs connect nothing, and only verbs tell types. isolated: private, and verbs go with any entity."""

COPULAS, PREPOSITIONS, CONJUNCTIONS = ("is", "has"), ("on", "in", "to"), ("and", "or")
TASKS = ("write", "order", "use")
"""First word of a sequence: free generation, unscramble, conditional generation."""
COLON = ":"
_FRAME = (*COPULAS, *PREPOSITIONS, *CONJUNCTIONS, *TASKS, COLON)
_LETTERS = ("bdfgklmnprstvz", "aeiou")


@dataclass(frozen=True)
class Config:
    pairs: int = 2
    """Pairs of types: subjects of a group of verbs, and their objects. Each of the 2 × `pairs` types has its own entities and values."""
    entities: int = 10
    """Entities per type."""
    properties: int = 4
    """Properties per type."""
    values: int = 10
    """Values per property."""
    shown: float = 0.2
    """Share of a property's values that occur with an entity."""
    relations: int = 4
    """Verbs per pair of types."""
    structure: str = "typed"
    """One of `Structure`."""
    shares: tuple[float, float, float] = (0.2, 0.4, 0.4)
    """Shares of free generation, unscramble and conditional generation among the sequences."""
    longest: int = 12
    """Maximum number of words in a sentence; longer ones are redrawn."""
    context: int = 48
    """Tokens in a row of text."""
    seed: int = 0

    @property
    def types(self) -> int:
        """Number of types of entities."""
        return 2 * self.pairs

    @property
    def entity_count(self) -> int:
        """|E|: entities of all types."""
        return self.types * self.entities

    @property
    def values_per_type(self) -> int:
        return self.properties * self.values

    @property
    def value_count(self) -> int:
        """|K|: values of all types."""
        return self.types * self.values_per_type


@dataclass(frozen=True, eq=False)
class World:
    """Words by token id, and which values occur with which entity. Entities and values are numbered type by type."""

    config: Config
    vocabulary: Mapping[str, int]
    entities: Int[NDArray[np.int64], " entity"]
    """Token of each entity; likewise `values`, and `relations` by pair of types."""
    values: Int[NDArray[np.int64], " value"]
    relations: Int[NDArray[np.int64], "pair verb"]
    seen: Bool[NDArray[np.bool_], "entity value"]
    """Whether they occur together."""

    @property
    def words(self) -> tuple[str, ...]:
        """Words by token id."""
        return tuple(self.vocabulary)

    @property
    def valid(self) -> Bool[NDArray[np.bool_], "entity value"]:
        """Whether the value is one of the entity's type."""
        config = self.config
        own = np.repeat(np.arange(config.types), config.entities)
        of_value = np.repeat(np.arange(config.types), config.values_per_type)
        return own[:, None] == of_value

    @property
    def pair_table(self) -> Int[NDArray[np.int64], "entity value"]:
        """2 for a pair that occurs, 1 for another valid one, 0 for one of two types."""
        return np.where(self.seen, 2, self.valid.astype(np.int64))

    def ids(self, *words: str) -> NDArray[np.int64]:
        """Token ids of some words."""
        return np.array([self.vocabulary[word] for word in words])


def make(config: Config | None = None) -> World:
    """Build the world of a seed. The values of an entity are a random pattern of each property, rotated by the number of the entity.

    Raises:
        BadInput: sizes that leave no types, no unseen pair or no sentence.
    """
    config = config or Config()
    _check(config)
    rng = np.random.default_rng([config.seed, 0])
    counts = (config.entity_count, config.value_count, config.pairs * config.relations)
    names = invent_names(rng, sum(counts), _LETTERS * 3)
    vocabulary = build_vocabulary((*_FRAME, *names))
    first = len(SPECIAL) + len(_FRAME)
    entities, values, relations = np.split(np.arange(first, first + sum(counts)), np.cumsum(counts)[:2])
    return World(config, vocabulary, entities, values, relations.reshape(config.pairs, -1), _seen(config, rng))


def _check(config: Config) -> None:
    if config.pairs < 1 or min(config.entities, config.relations, config.properties) < 1 or config.values < 2:
        raise BadInput(
            "there must be at least 1 pair of types with an entity, a verb, a property and 2 values, got "
            f"`pairs` {config.pairs}, `entities` {config.entities}, `relations` {config.relations}, `properties` "
            f"{config.properties} and `values` {config.values}."
        )
    if config.structure not in get_args(Structure):
        raise unknown_name("structure", config.structure, get_args(Structure))
    if not 1 <= (shown := round(config.shown * config.values)) < config.values:
        raise BadInput(
            f"`shown` must select some but not all of {config.values} values, got {shown}: pairs that never occur are what is measured."
        )
    if config.structure in ("private", "isolated") and config.values_per_type < config.entities:
        raise BadInput(
            f"private values need at least one for each of {config.entities} entities, got {config.values_per_type}: "
            "raise `properties` or `values`."
        )
    if len(config.shares) != 3 or min(config.shares) < 0 or not math.isclose(sum(config.shares), 1, abs_tol=1e-6):
        raise BadInput(f"`shares` must be three shares of tasks that sum to 1, got {config.shares}.")
    if config.longest < 4:
        raise BadInput(
            f"`longest` must be at least 4 words, the length of the shortest relation, got {config.longest}."
        )
    if config.context < (least := 2 * config.longest + 5):
        raise BadInput(
            f"`context` must be at least {least} tokens for sentences of {config.longest} words, got {config.context}."
        )
    count = config.entity_count + config.value_count + config.pairs * config.relations
    if count > (most := (len(_LETTERS[0]) * len(_LETTERS[1])) ** 3):
        raise BadInput(f"there must be at most {most} invented words, got {count}: use fewer entities or values.")


def _seen(config: Config, rng: np.random.Generator) -> Bool[NDArray[np.bool_], "entity value"]:
    """Whether an entity and a value occur together; every entity has equally many values."""
    n, valid = config.entities, config.values_per_type
    shown = np.arange(config.values) < round(config.shown * config.values)
    if config.structure in ("private", "isolated"):
        owner = np.arange(valid) % n
        own = (owner == np.arange(n)[:, None]) & (np.arange(valid) < n * (valid // n))
        blocks = [own[:, rng.permutation(valid)] for _ in range(config.types)]
    elif config.structure == "shuffled":
        count = config.properties * int(shown.sum())
        chosen = np.arange(config.value_count) < count
        return np.stack([rng.permutation(chosen) for _ in range(config.entity_count)])
    else:
        blocks = []
        for _ in range(config.types):
            pattern = np.stack([rng.permutation(shown) for _ in range(config.properties)])
            blocks.append(np.stack([np.roll(pattern, i, axis=1).reshape(-1) for i in range(n)]))
    seen = np.zeros((config.entity_count, config.value_count), dtype=bool)
    for i, block in enumerate(blocks):
        seen[i * n : (i + 1) * n, i * valid : (i + 1) * valid] = block
    return seen
