"""Typed language: the kind of an entity determines its valid values, of which only a share occurs in training (arXiv:2408.12578).

A grammar makes a sentence with slots, which are then filled: subjects and verbs of one kind, objects of the partner kind, and values of
which only a share occurs with each entity. Kinds decide validity, so an unseen pair can be valid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.worlds._concepts import world_concept
from ontogeny.worlds.grammar.language import UNGRAMMATICAL, Feature, Language, derivation_features
from ontogeny.worlds.grammar.parser import recognise
from ontogeny.worlds.grammar.rules import Floats, Grammar, Ints, make_grammar
from ontogeny.worlds.grammar.sampling import NO_SYMBOL, Strings

_SLOTS = ("SUBJECT", "OBJECT", "RELATION", "VALUE")
_VERDICTS = (UNGRAMMATICAL, "mistyped", "unseen", "seen")
_VALUES_PER_ENTITY = 3
"""Maximum number of values per entity in a concept."""
_SYLLABLES = tuple(c + v for c in "bdfgklmnprstvz" for v in "aeiou")


@dataclass(frozen=True)
class Typed:
    kinds: int = 2
    """Kinds of subjects; each has its own objects, properties and relations."""
    entities: int = 20
    """Subjects per kind, and objects per kind."""
    properties: int = 4
    """Properties per kind of subjects."""
    values: int = 10
    """Values per property."""
    shown: float = 0.3
    """Share of a property's values that occur with an entity."""
    relations: int = 4
    """Verbs per kind."""


@dataclass(frozen=True)
class TypedFacts:
    """Words by kind, and the pairs that occur. The values of a kind are numbered property by property."""

    subjects: Ints
    """Kind × entity: numbers of words; likewise `objects`, `relations` and `values`."""
    objects: Ints
    relations: Ints
    values: Ints
    shown: NDArray[np.bool_]
    """Kind × entity × value: whether they occur together."""


def typed_language(config: Typed, rng: np.random.Generator) -> Language:
    """The preset `typed`.

    Raises:
        BadInput: too few kinds, entities or values.
    """
    _check(config)
    grammar = _grammar()
    frame = tuple(word for word in grammar.terminals if word not in _SLOTS)
    facts, names = _facts(config, rng, len(frame))
    words = (*frame, *names)
    parts = {symbol: symbol.lower() for symbol in ("Subject", "Object", "Relation", "Value", "Prep", "Copula", "And")}
    kinds = tuple(f"kind {i + 1}" for i in range(config.kinds))
    kind = Feature("kind", "Of which kind is the subject?", "classes", partial(_kind, facts), kinds)
    part_of_speech, *_ = derivation_features(grammar, parts)
    return Language(
        grammar,
        words,
        (kind, part_of_speech),
        judge=partial(_typed_verdicts, grammar, facts, len(frame)),
        verdicts=_VERDICTS,
        finish=partial(_fill_slots, grammar, facts),
        facts=lambda strings: _familiar_values(facts, words),
        extra_concepts=(valid_value_concept(facts, words), familiar_value_concept(facts, words)),
    )


def _check(config: Typed) -> None:
    if config.kinds < 2 or config.entities < 10 or min(config.properties, config.relations) < 1:
        raise BadInput(
            "there must be at least 2 kinds of 10 entities, with a property and a relation, got "
            f"{config.kinds} kinds of {config.entities}."
        )
    if not 1 <= (shown := round(config.shown * config.values)) < config.values:
        raise BadInput(f"`shown` must select some but not all of {config.values} values, got {shown}.")


def _grammar() -> Grammar:
    """A single subject has values and relations, joined subjects only relations: a value belongs to one entity."""
    return make_grammar(
        "S",
        {
            "S": {"Subject VP": 0.8, "Subjects RP": 0.2},
            "Subjects": {"Subject And Subject": 0.8, "Subject And Subjects": 0.2},
            "VP": {"Copula Value": 0.4, "Relation Prep Objects": 0.4, "VP1 And VP": 0.2},
            "VP1": {"Copula Value": 0.5, "Relation Prep Objects": 0.5},
            "RP": {"Relation Prep Objects": 0.8, "Relation Prep Objects And RP": 0.2},
            "Objects": {"Object": 0.7, "Object And Objects": 0.3},
            "Copula": {"is": 0.5, "has": 0.5},
            "Prep": {"on": 0.4, "in": 0.3, "to": 0.3},
            "And": {"and": 0.5, "or": 0.5},
            "Subject": {"SUBJECT": 1},
            "Object": {"OBJECT": 1},
            "Relation": {"RELATION": 1},
            "Value": {"VALUE": 1},
        },
    )


def _facts(config: Typed, rng: np.random.Generator, first: int) -> tuple[TypedFacts, tuple[str, ...]]:
    """Draw words and facts. The values of an entity are a random pattern of its property, rotated by the number of the entity."""
    valid = config.properties * config.values
    sizes = (config.entities, config.entities, config.relations, valid)
    pool = rng.permutation(len(_SYLLABLES) ** 3)
    if config.kinds * sum(sizes) > len(pool):
        raise BadInput(
            f"there must be at most {len(pool)} words, got {config.kinds * sum(sizes)}: use fewer entities or values."
        )
    names = tuple(_name(number) for number in pool[: config.kinds * sum(sizes)].tolist())
    ends = first + config.kinds * np.cumsum(sizes)
    subjects, objects, relations, values = (
        np.arange(end - config.kinds * size, end).reshape(config.kinds, size)
        for end, size in zip(ends, sizes, strict=True)
    )
    seen = np.arange(config.values) < round(config.shown * config.values)
    pattern = np.stack([[rng.permutation(seen) for _ in range(config.properties)] for _ in range(config.kinds)])
    rotated = np.stack([np.roll(pattern, entity, axis=-1) for entity in range(config.entities)], axis=1)
    shown = rotated.reshape(config.kinds, config.entities, valid)
    return TypedFacts(subjects, objects, relations, values, shown), names


def _name(number: int) -> str:
    name = ""
    for _ in range(3):
        number, syllable = divmod(number, len(_SYLLABLES))
        name += _SYLLABLES[syllable]
    return name


def _fill_slots(grammar: Grammar, facts: TypedFacts, rng: np.random.Generator, strings: Strings) -> Strings:
    """Replace slots by words; all words of a sentence belong to its random kind."""
    frame = [i for i, word in enumerate(grammar.terminals) if word not in _SLOTS]
    renumbered = np.full(len(grammar.terminals) + 1, NO_SYMBOL)
    renumbered[frame] = np.arange(len(frame))
    out = renumbered[strings.words]
    kind = rng.integers(len(facts.subjects), size=len(strings))
    for slot, words in (("SUBJECT", facts.subjects), ("OBJECT", facts.objects), ("RELATION", facts.relations)):
        row, column = np.nonzero(strings.words == grammar.terminals.index(slot))
        out[row, column] = words[kind[row], rng.integers(words.shape[1], size=row.size)]
    row, column = np.nonzero(strings.words == grammar.terminals.index("VALUE"))
    entity = out[row, 0] - facts.subjects[kind[row], 0]
    seen = np.argsort(~facts.shown, axis=-1, kind="stable")[..., : int(facts.shown[0, 0].sum())]
    value = seen[kind[row], entity, rng.integers(seen.shape[-1], size=row.size)]
    out[row, column] = facts.values[kind[row], value]
    return replace(strings, words=out)


def _typed_verdicts(grammar: Grammar, facts: TypedFacts, frame: int, given: Ints, lengths: Ints) -> Ints:
    """Check the form by the grammar, then kinds, then whether each value occurs with the subject."""
    tables = (facts.subjects, facts.objects, facts.relations, facts.values)
    terminal, kinds = _slots(grammar, tables, frame)
    inside = np.arange(given.shape[1]) < lengths[:, None]
    known = np.where(inside & (given >= 0) & (given < len(terminal) - 1), given, len(terminal) - 1)
    formed = recognise(grammar, terminal[known], lengths)
    kind = np.where(inside, kinds[known], NO_SYMBOL)
    own = kind[:, 0] if kind.shape[1] else np.zeros(len(given), dtype=int)
    typed = formed & ((kind == NO_SYMBOL) | (kind == own[:, None])).all(1)
    row, column = np.nonzero((terminal[known] == grammar.terminals.index("VALUE")) & typed[:, None])
    entity = given[row, 0] - facts.subjects[own[row], 0]
    unseen = ~facts.shown[own[row], entity, given[row, column] - facts.values[own[row], 0]]
    hidden = np.bincount(row, weights=unseen, minlength=len(given)) > 0
    return np.select([~formed, ~typed, hidden], [0, 1, 2], 3)


def _slots(grammar: Grammar, tables: Sequence[Ints], frame: int) -> tuple[Ints, Ints]:
    """Terminal and kind of each word; the last entry is for no word."""
    count = frame + sum(table.size for table in tables)
    terminal, kinds = np.full(count + 1, NO_SYMBOL), np.full(count + 1, NO_SYMBOL)
    terminal[:frame] = [i for i, word in enumerate(grammar.terminals) if word not in _SLOTS]
    for slot, table in zip(_SLOTS, tables, strict=True):
        terminal[table] = grammar.terminals.index(slot)
        kinds[table] = np.arange(len(table))[:, None]
    return terminal, kinds


def _kind(facts: TypedFacts, strings: Strings) -> Floats:
    """The kind of the subject, at the first word."""
    own = np.full(strings.words.max(initial=0) + 1, np.nan)
    inside = facts.subjects[facts.subjects < len(own)]
    own[inside] = np.nonzero(facts.subjects < len(own))[0]
    kind = np.where(np.arange(strings.words.shape[1]) == 0, own[strings.words[:, :1]], np.nan)
    return np.where(strings.inside, kind, np.nan)


def _familiar_values(facts: TypedFacts, words: tuple[str, ...]) -> tuple[Answer, ...]:
    """For each entity two values that occur with it, each against a value of the next kind."""
    answers = []
    for kind, entity in np.ndindex(facts.subjects.shape):
        name, other = words[facts.subjects[kind, entity]], facts.values[(kind + 1) % len(facts.values)]
        for i, value in enumerate(np.flatnonzero(facts.shown[kind, entity])[:2]):
            wrong = words[other[(entity + value) % len(other)]]
            copula = ("is", "has")[i % 2]
            answers.append(Answer(f"{name} {copula}", f" {words[facts.values[kind, value]]}", f" {wrong}", name))
    return tuple(answers)


def valid_value_concept(facts: TypedFacts, words: tuple[str, ...]) -> Concept:
    """Valid values that never occur with the entity, against values of the next kind. A valid value of one entity is the false value of
    another one in its group, so word counts do not predict the label.
    """
    kinds, entities, _ = facts.shown.shape
    examples, answers = [], []
    for entity in range(entities):
        group = " ".join(words[facts.subjects[kind, entity]] for kind in range(kinds))
        hidden = [[words[i] for i in facts.values[kind][~facts.shown[kind, entity]]] for kind in range(kinds)]
        for kind in range(kinds):
            subject = words[facts.subjects[kind, entity]]
            for right, wrong in list(zip(hidden[kind], hidden[(kind + 1) % kinds], strict=True))[:_VALUES_PER_ENTITY]:
                pair = f"{subject} {right}"
                examples.append(Example(f"{subject} is {right}", True, group, pair))
                examples.append(Example(f"{subject} is {wrong}", False, group, pair))
                answers.append(Answer(f"{subject} is", f" {right}", f" {wrong}", group))
    question = "Is the value one that the entity can have?"
    return world_concept("grammar", "valid", examples, question, answers=answers)


def familiar_value_concept(facts: TypedFacts, words: tuple[str, ...]) -> Concept:
    """Values that occur with the entity, against values that occur only with the other entity of its group."""
    examples = []
    for kind in range(len(facts.subjects)):
        for one, two in zip(range(0, facts.shown.shape[1], 2), range(1, facts.shown.shape[1], 2), strict=False):
            group = f"{words[facts.subjects[kind, one]]} {words[facts.subjects[kind, two]]}"
            own, others = facts.shown[kind, one], facts.shown[kind, two]
            only = [
                np.flatnonzero(own & ~others)[:_VALUES_PER_ENTITY],
                np.flatnonzero(others & ~own)[:_VALUES_PER_ENTITY],
            ]
            for entity, (right, wrong) in ((one, only), (two, only[::-1])):
                subject = words[facts.subjects[kind, entity]]
                for target, values in ((True, right), (False, wrong)):
                    texts = [f"{subject} is {words[facts.values[kind, value]]}" for value in values]
                    examples += [Example(text, target, group) for text in texts]
    question, answers = "Was the value ever seen with the entity?", _familiar_values(facts, words)
    return world_concept("grammar", "seen", examples, question, answers=answers)
