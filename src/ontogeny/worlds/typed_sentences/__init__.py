"""Typed sentences: entities × values of a language with types, as sentences, scrambled sentences and sentences with given words.

The type of an entity decides which values it may have and which verbs relate it to which objects; only a share of the valid pairs of an
entity and a value occurs. A model that knows types accepts the others. The language of arXiv:2408.12578, generated from the seed, with a
hand-written recogniser and minimal pairs. The preset `typed` of the world grammar has free sentences only, and a chart parser.
"""

import numpy as np
from transformers import PreTrainedTokenizerFast

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.worlds import _vocabulary
from ontogeny.worlds._concepts import world_concept
from ontogeny.worlds._vocabulary import BOS, TokenIds
from ontogeny.worlds.typed_sentences.language import TASKS, Config, Structure, World, make
from ontogeny.worlds.typed_sentences.minimal_pairs import PAIR_KINDS, MinimalPairs, draw_minimal_pairs
from ontogeny.worlds.typed_sentences.recogniser import (
    CATEGORIES,
    VERDICTS,
    SentenceCheck,
    allowed_categories,
    check_sentences,
    token_categories,
    token_types,
    walk_automaton,
)
from ontogeny.worlds.typed_sentences.sentences import Prompts, Sentences, draw_prompts, draw_sentences, whole_sequences

__all__ = [
    "CATEGORIES", "PAIR_KINDS", "TASKS", "VERDICTS", "Config", "MinimalPairs", "Prompts", "SentenceCheck", "Sentences", "Structure",
    "World", "allowed_categories", "check_sentences", "concepts", "draw_minimal_pairs", "draw_prompts", "draw_sentences", "facts", "judge",
    "make", "sample", "token_categories", "token_types", "tokenizer", "walk_automaton", "whole_sequences",
]  # fmt: skip
_VALUES = 3
"""Values of an entity in the concept."""
_SHORTEST = 6
"""Tokens of the shortest sequence, `write : X is value </s>`."""


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return _vocabulary.word_tokenizer(world.vocabulary, longest=world.config.context)


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Rows of `context` token ids without padding: whole sequences of the three tasks, in random order; the last one of a row is cut."""
    config = world.config
    total = rows * -(-config.context // _SHORTEST)
    blocks = []
    for task, count in enumerate(rng.multinomial(total, config.shares)):
        ids, lengths = whole_sequences(world, draw_prompts(world, rng, int(count), task))
        blocks += [ids[lengths == length, 1:length] for length in np.unique(lengths)]
    first = world.vocabulary[BOS]
    return _vocabulary.pack_sentences(blocks, rng.permutation(total), rows=rows, context=config.context, first=first)


def facts(world: World) -> tuple[Answer, ...]:
    """For each entity two values that never occur with it: one of its type, and one of another."""
    return tuple(
        Answer(f"write : {name} is", f" {right}", f" {wrong}", group)
        for name, group, rights, wrongs in _unseen_values(world)
        for right, wrong in zip(rights[:1], wrongs[:1], strict=True)
    )


def concepts(world: World) -> tuple[Concept, ...]:
    """Valid values that never occur with the entity, against values of another type. The false value of one entity is the valid one of
    another entity in its group, so that word counts do not predict the label.
    """
    examples = []
    for name, group, rights, wrongs in _unseen_values(world):
        for right, wrong in zip(rights, wrongs, strict=True):
            pair = f"{name} {right}"
            examples += [Example(f"write : {name} is {v}", v == right, group, pair) for v in (right, wrong)]
    question = "Is the value one that the entity can have?"
    return (world_concept("typed_sentences", "valid", examples, question, answers=facts(world)),)


def _unseen_values(world: World) -> list[tuple[str, str, list[str], list[str]]]:
    """By entity: its name, its group (one entity per type), unseen values of its type, and those of the next type's entity."""
    config, words = world.config, world.words
    unseen = world.valid & ~world.seen
    rows = []
    for entity in range(config.entity_count):
        kind, place = divmod(entity, config.entities)
        other = (kind + 1) % config.types * config.entities + place
        group = " ".join(words[world.entities[k * config.entities + place]] for k in range(config.types))
        free = unseen[other] & ~world.seen[entity]
        right, wrong = (
            [words[world.values[v]] for v in np.flatnonzero(mask)[:_VALUES]] for mask in (unseen[entity], free)
        )
        count = min(len(right), len(wrong))
        rows.append((words[world.entities[entity]], group, right[:count], wrong[:count]))
    return rows


def judge(world: World, text: str) -> str:
    """The oracle: a verdict in `VERDICTS` on a sentence, with or without `write :` in front."""
    split = text.removeprefix("write :").split()
    words = np.array([[world.vocabulary.get(word, 0) for word in split]], dtype=np.int64).reshape(1, -1)
    return VERDICTS[int(check_sentences(world, words, np.array([words.shape[1]])).verdicts[0])]
