"""Minimal pairs: a right sentence, and one that breaks exactly one rule: word order, the type of a relation, or the type of a value."""

from dataclasses import dataclass

import numpy as np

from ontogeny.errors import unknown_name
from ontogeny.worlds.typed_sentences.language import World
from ontogeny.worlds.typed_sentences.recogniser import check_sentences, token_categories, token_types
from ontogeny.worlds.typed_sentences.sentences import Sentences, draw_sentences

PAIR_KINDS = ("order", "relation", "value")
"""order: two neighbouring words change places. relation: the object of a verb is of another type. value: an unseen value of the subject's
type against one of another type; neither occurs with the subject."""
_TRIES = 64


@dataclass(frozen=True, eq=False)
class MinimalPairs:
    """Right and wrong sentences, row by row, of equal lengths."""

    right: Sentences
    wrong: Sentences


def draw_minimal_pairs(world: World, rng: np.random.Generator, count: int, kind: str) -> MinimalPairs:
    """Minimal pairs of a kind in `PAIR_KINDS`, by the types of the world even where its sentences are shuffled.

    Raises:
        BadInput: no such kind.
    """
    if kind not in PAIR_KINDS:
        raise unknown_name("kind of minimal pair", kind, PAIR_KINDS)
    if kind == "value":
        return _value_pairs(world, rng, count)
    rights, wrongs, drawn = [], [], 0
    for _ in range(_TRIES):
        right = draw_sentences(world, rng, 2 * count)
        wrong = _swapped(rng, right) if kind == "order" else _wrong_object(world, rng, right)
        before, after = (check_sentences(world, words, right.lengths) for words in (right.words, wrong))
        broken = ~after.grammatical if kind == "order" else after.grammatical & before.has_relation
        if world.config.structure not in ("shuffled", "isolated") and kind == "relation":
            broken &= before.relations_typed & ~after.relations_typed
        rights.append(right.words[broken])
        wrongs.append(wrong[broken])
        drawn += int(broken.sum())
        if drawn >= count:
            break
    words = [np.concatenate(parts)[:count] for parts in (rights, wrongs)]
    lengths = (words[0] > 0).sum(1)
    return MinimalPairs(Sentences(words[0], lengths), Sentences(words[1], lengths))


def _swapped(rng: np.random.Generator, right: Sentences) -> np.ndarray:
    """Two neighbouring words of each sentence in the other order."""
    rows, at = np.arange(len(right)), rng.integers(right.lengths - 1)
    wrong = right.words.copy()
    wrong[rows, at], wrong[rows, at + 1] = right.words[rows, at + 1], right.words[rows, at]
    return wrong


def _wrong_object(world: World, rng: np.random.Generator, right: Sentences) -> np.ndarray:
    """The last object of each sentence replaced by an entity of another type; sentences without an object stay."""
    config = world.config
    entity = token_categories(world)[right.words] == 0
    entity[:, 0] = False
    last = right.words.shape[1] - 1 - entity[:, ::-1].argmax(1)
    rows = np.flatnonzero(entity.any(1))
    wrong = right.words.copy()
    kind = token_types(world)[right.words[rows, last[rows]]]
    other = (kind + rng.integers(1, config.types, size=len(rows))) % config.types
    wrong[rows, last[rows]] = world.entities[other * config.entities + rng.integers(config.entities, size=len(rows))]
    return wrong


def _value_pairs(world: World, rng: np.random.Generator, count: int) -> MinimalPairs:
    entity = rng.integers(world.config.entity_count, size=count)
    table = world.pair_table[entity]
    chance = rng.random(table.shape)
    right = np.where((table == 1), chance, -1).argmax(1)
    wrong = np.where((table == 0), chance, -1).argmax(1)
    copula = world.ids("is", "has")[rng.integers(2, size=count)]
    both = []
    for value in (right, wrong):
        words = np.zeros((count, world.config.longest), dtype=np.int64)
        words[:, :3] = np.stack([world.entities[entity], copula, world.values[value]], axis=1)
        both.append(Sentences(words, np.full(count, 3)))
    return MinimalPairs(*both)
