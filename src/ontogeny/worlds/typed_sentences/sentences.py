"""Sentences and the three tasks, drawn in batches: free generation, unscrambling, and sentences with given words.

A sentence is one or more subjects and clauses, joined by `and` or `or`: `X is value`, or `X verb on Y`. The number of joined subjects or
clauses is that of the leaves of a random binary tree, as the rule NP → NP conj NP gives it.
"""

from dataclasses import dataclass
from math import comb

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds._vocabulary import BOS, EOS, PAD, TokenIds
from ontogeny.worlds.typed_sentences.language import COLON, CONJUNCTIONS, COPULAS, PREPOSITIONS, TASKS, World

_MOST = 3
"""Maximum number of joined subjects, clauses or objects."""
_JOINED, _MORE_OBJECTS, _GIVEN = 0.2, 0.3, 0.5
_PREPOSITION_SHARES = (0.4, 0.3, 0.3)


@dataclass(frozen=True, eq=False)
class Sentences:
    """Sentences as rows of token ids, filled with the padding token; `lengths` in words."""

    words: Int[NDArray[np.int64], "sentence word"]
    lengths: Int[NDArray[np.int64], " sentence"]

    def __len__(self) -> int:
        return len(self.lengths)


def draw_sentences(world: World, rng: np.random.Generator, count: int) -> Sentences:
    """Draw sentences of at most `longest` words."""
    longest = world.config.longest
    parts, drawn = [np.zeros((0, longest), dtype=np.int64)], 0
    while drawn < count:
        grid = _sentence_grid(world, rng, count - drawn + 8)
        words = np.take_along_axis(grid, np.argsort(grid == 0, axis=1, kind="stable"), axis=1)
        short = (words > 0).sum(1) <= longest
        parts.append(words[short, :longest])
        drawn += int(short.sum())
    words = np.concatenate(parts)[:count]
    return Sentences(words, (words > 0).sum(1))


def _sentence_grid(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    """Words in a fixed layout, 0 for an absent one: subjects, then per clause a conjunction, a verb and its words."""
    config, free = world.config, world.config.structure in ("shuffled", "isolated")
    subjects, clauses = (_leaves(rng, n) for _ in range(2))
    relational = (rng.random((n, _MOST)) < 0.5) | (subjects > 1)[:, None]
    inside = np.arange(_MOST) < clauses[:, None]
    has_relation = (relational & inside).any(1)
    kind = np.where(has_relation, rng.integers(config.pairs, size=n), rng.integers(config.types, size=n))
    own = rng.integers(config.entities, size=(n, _MOST)) + kind[:, None] * config.entities
    objects = (
        rng.integers(config.entities, size=(n, _MOST, _MOST))
        + ((kind % config.pairs) + config.pairs)[:, None, None] * config.entities
    )
    group = kind % config.pairs
    if free:
        own, objects = (rng.integers(config.entity_count, size=a.shape) for a in (own, objects))
        group = rng.integers(config.pairs, size=n)
    conjunction = world.ids(*CONJUNCTIONS)[rng.integers(2, size=(n, _MOST + 1, _MOST))]
    head = _joined(np.where(np.arange(_MOST) < subjects[:, None], world.entities[own], 0), conjunction[:, _MOST])
    seen = np.argsort(~world.seen, axis=1, kind="stable")[:, : int(world.seen[0].sum())]
    value = world.values[seen[own[:, :1], rng.integers(seen.shape[1], size=(n, _MOST))]]
    verb = world.relations[group[:, None], rng.integers(config.relations, size=(n, _MOST))]
    copula = world.ids(*COPULAS)[rng.integers(2, size=(n, _MOST))]
    preposition = world.ids(*PREPOSITIONS)[rng.choice(len(PREPOSITIONS), p=_PREPOSITION_SHARES, size=(n, _MOST))]
    count = np.minimum(rng.geometric(1 - _MORE_OBJECTS, size=(n, _MOST)), _MOST)
    blocks = [head]
    for i in range(_MOST):
        block = np.zeros((n, 3 + 2 * _MOST - 1), dtype=np.int64)
        relation = relational[:, i]
        if i:
            block[:, 0] = conjunction[:, i, -1]
        block[:, 1] = np.where(relation, verb[:, i], copula[:, i])
        block[:, 2] = np.where(relation, preposition[:, i], value[:, i])
        present = relation[:, None] & (np.arange(_MOST) < count[:, i, None])
        block[:, 3:] = _joined(np.where(present, world.entities[objects[:, i]], 0), conjunction[:, i])
        blocks.append(np.where(inside[:, i, None], block, 0))
    return np.concatenate(blocks, axis=1)


def _joined(words: TokenIds, conjunctions: TokenIds) -> TokenIds:
    """Words with a conjunction before each but the first; 0 for an absent one."""
    grid = np.zeros((len(words), 2 * words.shape[1] - 1), dtype=np.int64)
    grid[:, ::2] = words
    grid[:, 1::2] = np.where(words[:, 1:] > 0, conjunctions[:, : words.shape[1] - 1], 0)
    return grid


def _leaves(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Leaves of binary trees that branch with probability `_JOINED`, up to `_MOST`: Catalan numbers times powers."""
    sizes = np.arange(1, _MOST + 1)
    catalan = np.array([comb(2 * (k - 1), k - 1) // k for k in sizes])
    weights = catalan * _JOINED ** (sizes - 1) * (1 - _JOINED) ** sizes
    return rng.choice(sizes, p=weights / weights.sum(), size=n)


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts of one task up to the last colon, after `<s>`, and a sentence that answers each."""

    ids: Int[NDArray[np.int64], "prompt token"]
    """Filled with the padding token after `lengths`."""
    lengths: Int[NDArray[np.int64], " prompt"]
    answers: Sentences


def draw_prompts(world: World, rng: np.random.Generator, count: int, task: int) -> Prompts:
    """Prompts of a task, as its number in `TASKS`.

    `order` gives the words of a sentence in random order; `use` gives some of its entities, verbs and values, at least one.

    Raises:
        BadInput: no such task, or a negative number of prompts.
    """
    if task not in range(len(TASKS)) or count < 0:
        raise BadInput(
            f"`task` must be 0 to {len(TASKS) - 1}, a number in TASKS, and `count` at least 0, got {task} and {count}."
        )
    answers = draw_sentences(world, rng, count)
    width, words = world.config.longest, answers.words
    chance = rng.random(words.shape)
    if task == 0:
        given = np.zeros((count, 0), dtype=np.int64)
    elif task == 1:
        given = np.take_along_axis(words, np.argsort(np.where(words > 0, chance, 2), axis=1), axis=1)
    else:
        content = words >= world.entities[0]
        chosen = content & ((chance < _GIVEN) | (chance == np.where(content, chance, 2).min(1, keepdims=True)))
        # A word that occurs twice in the sentence is given once; the order tells nothing.
        first = (words[:, :, None] == words[:, None, :]).argmax(2) == np.arange(width)
        key = np.where(chosen & first, chance, 2)
        key[(key == 2).all(1), 0] = 1
        order = np.argsort(key, axis=1)
        given = np.where(np.take_along_axis(key, order, axis=1) < 2, np.take_along_axis(words, order, axis=1), 0)
    lengths = (given > 0).sum(1)
    ids = np.full((count, 3 + given.shape[1] + bool(task)), world.vocabulary[PAD])
    ids[:, : 2 + bool(task)] = world.ids(BOS, TASKS[task], *([COLON] if task else []))
    head = 2 + bool(task)
    ids[:, head : head + given.shape[1]] = given
    ids[np.arange(count), head + lengths] = world.vocabulary[COLON]
    return Prompts(ids, head + lengths + 1, answers)


def whole_sequences(world: World, prompts: Prompts) -> tuple[TokenIds, NDArray[np.int64]]:
    """Each prompt with its answer and `</s>`, filled with the padding token, and the lengths in tokens."""
    answers, count = prompts.answers, len(prompts.answers)
    lengths = prompts.lengths + answers.lengths + 1
    ids = np.full((count, int(lengths.max(initial=0))), world.vocabulary[PAD])
    ids[:, : prompts.ids.shape[1]] = prompts.ids[:, : ids.shape[1]]
    row, column = np.nonzero(answers.words)
    ids[row, prompts.lengths[row] + column] = answers.words[row, column]
    ids[np.arange(count), lengths - 1] = world.vocabulary[EOS]
    return ids, lengths
