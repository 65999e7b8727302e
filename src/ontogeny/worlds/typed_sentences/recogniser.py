"""Recogniser of the typed sentences: a finite automaton for their form, then the types of verbs, objects and values, for many at once."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds._vocabulary import TokenIds
from ontogeny.worlds.typed_sentences.language import CONJUNCTIONS, COPULAS, PREPOSITIONS, World

VERDICTS = ("ungrammatical", "mistyped relation", "mistyped value", "unseen", "seen")
CATEGORIES = ("entity", "copula", "relation", "preposition", "value", "conjunction", "other")
_ENTITY, _COPULA, _RELATION, _PREPOSITION, _VALUE, _CONJUNCTION, _OTHER = range(len(CATEGORIES))
_START, _SUBJECT, _MORE, _IS, _VERB, _PREP, _SAID, _OBJECT, _AFTER_SAID, _AFTER_OBJECT = range(10)
_SUBJECTS, _VERB2, _PREP2, _OBJECT2, _AFTER2, _DEAD = range(10, 16)
_ACCEPT = (_SAID, _OBJECT, _OBJECT2)
# State → what may follow. Joined subjects have a copy of the states of a relation, since a value belongs to one entity.
_RULES = {
    _START: {_ENTITY: _SUBJECT},
    _SUBJECT: {_CONJUNCTION: _MORE, _COPULA: _IS, _RELATION: _VERB},
    _MORE: {_ENTITY: _SUBJECTS},
    _IS: {_VALUE: _SAID},
    _VERB: {_PREPOSITION: _PREP},
    _PREP: {_ENTITY: _OBJECT},
    _SAID: {_CONJUNCTION: _AFTER_SAID},
    _OBJECT: {_CONJUNCTION: _AFTER_OBJECT},
    _AFTER_SAID: {_COPULA: _IS, _RELATION: _VERB},
    _AFTER_OBJECT: {_ENTITY: _OBJECT, _COPULA: _IS, _RELATION: _VERB},
    _SUBJECTS: {_CONJUNCTION: _MORE, _RELATION: _VERB2},
    _VERB2: {_PREPOSITION: _PREP2},
    _PREP2: {_ENTITY: _OBJECT2},
    _OBJECT2: {_CONJUNCTION: _AFTER2},
    _AFTER2: {_ENTITY: _OBJECT2, _RELATION: _VERB2},
}


@dataclass(frozen=True, eq=False)
class SentenceCheck:
    """Verdicts on sentences, each conditional on the ones before it in `VERDICTS`."""

    grammatical: Bool[NDArray[np.bool_], " sentence"]
    relations_typed: Bool[NDArray[np.bool_], " sentence"]
    """All subjects, verbs and objects are of one pair of types; True without a verb. False if ungrammatical."""
    values_typed: Bool[NDArray[np.bool_], " sentence"]
    """All values are of the subject's type; True without values. False if ungrammatical."""
    seen: Bool[NDArray[np.bool_], " sentence"]
    """All values occur with the subject."""
    has_relation: Bool[NDArray[np.bool_], " sentence"]
    has_value: Bool[NDArray[np.bool_], " sentence"]

    @property
    def verdicts(self) -> Int[NDArray[np.int64], " sentence"]:
        """Index into `VERDICTS`."""
        wrong = [~self.grammatical, ~self.relations_typed, ~self.values_typed, ~self.seen]
        return np.select(wrong, list(range(4)), 4)


def token_categories(world: World) -> Int[NDArray[np.int64], " token"]:
    """Number of the category of each token in `CATEGORIES`."""
    categories = np.full(len(world.vocabulary), _OTHER)
    for tokens, category in (
        (world.entities, _ENTITY), (world.ids(*COPULAS), _COPULA), (world.relations, _RELATION),
        (world.ids(*PREPOSITIONS), _PREPOSITION), (world.values, _VALUE), (world.ids(*CONJUNCTIONS), _CONJUNCTION),
    ):  # fmt: skip
        categories[tokens] = category
    return categories


def token_types(world: World) -> Int[NDArray[np.int64], " token"]:
    """Type of each entity and value, pair of types of each verb, −1 for other tokens."""
    config, types = world.config, np.full(len(world.vocabulary), -1)
    types[world.entities] = np.repeat(np.arange(config.types), config.entities)
    types[world.values] = np.repeat(np.arange(config.types), config.values_per_type)
    types[world.relations] = np.arange(config.pairs)[:, None]
    return types


def walk_automaton(
    categories: Int[NDArray[np.int64], "sentence word"],
) -> Int[NDArray[np.int64], "sentence place"]:
    """State before each word and after the last one."""
    table = np.full((_DEAD + 1, len(CATEGORIES)), _DEAD)
    for state, moves in _RULES.items():
        for category, following in moves.items():
            table[state, category] = following
    states = np.full((categories.shape[0], categories.shape[1] + 1), _START)
    for place in range(categories.shape[1]):
        states[:, place + 1] = table[states[:, place], categories[:, place]]
    return states


def allowed_categories(
    states: Int[NDArray[np.int64], "*place"],
) -> tuple[Bool[NDArray[np.bool_], "*place category"], Bool[NDArray[np.bool_], "*place"]]:
    """Categories that may follow each state, and whether a sentence may end there."""
    allowed = np.zeros((_DEAD + 1, len(CATEGORIES)), dtype=bool)
    for state, moves in _RULES.items():
        allowed[state, list(moves)] = True
    return allowed[states], np.isin(states, _ACCEPT)


def check_sentences(world: World, words: TokenIds, lengths: Int[NDArray[np.int64], " sentence"]) -> SentenceCheck:
    """Check sentences; a token that is not a word makes a sentence ungrammatical.

    Args:
        words: Token ids, sentence × word; those after `lengths` count for nothing.

    Raises:
        BadInput: lengths that do not fit the words.
    """
    if len(words) != len(lengths) or lengths.max(initial=0) > words.shape[1] or lengths.min(initial=0) < 0:
        raise BadInput(f"`lengths` must be one per sentence, from 0 to {words.shape[1]}, got {lengths.tolist()[:5]}.")
    inside = np.arange(words.shape[1]) < lengths[:, None]
    if not words.shape[1]:
        words, inside = np.zeros((len(words), 1), dtype=np.int64), np.zeros((len(words), 1), dtype=bool)
    known = np.where(inside & (words >= 0) & (words < len(world.vocabulary)), words, 0)
    category = token_categories(world)[known]
    states = walk_automaton(category)
    grammatical = np.isin(states[np.arange(len(words)), lengths], _ACCEPT)
    kind = np.where(inside, token_types(world)[known], -1)
    category = np.where(inside, category, _OTHER)
    own = kind[:, 0]
    begun = np.cumsum(np.isin(category, (_COPULA, _RELATION)), axis=1) > 0
    entity, verb, value = (category == c for c in (_ENTITY, _RELATION, _VALUE))
    want = own[:, None] + np.where(entity & begun, world.config.pairs, 0)
    wrong = kind != want
    relations_typed = grammatical & ~(wrong & (entity | verb)).any(1)
    values_typed = grammatical & ~(wrong & value).any(1)
    row, column = np.nonzero(value & grammatical[:, None])
    unseen = ~world.seen[known[row, 0] - world.entities[0], known[row, column] - world.values[0]]
    missing = np.bincount(row, weights=unseen, minlength=len(words)) > 0
    return SentenceCheck(
        grammatical,
        relations_typed,
        values_typed,
        grammatical & ~missing,
        grammatical & verb.any(1),
        grammatical & value.any(1),
    )
