"""Typed language: what may be said of an entity is known from its kind, though most of it is never said (arXiv:2408.12578).

A grammar makes the sentence, then its open places are filled: subjects of one kind, objects of the partner kind, verbs of their relation,
and values of which only a share is ever seen with an entity. Kinds, not pairs, decide what is valid: what was never seen can be right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.worlds.grammar.language import UNGRAMMATICAL, Feature, Language, derivation_features
from ontogeny.worlds.grammar.parser import recognise
from ontogeny.worlds.grammar.rules import Floats, Grammar, Ints, make_grammar
from ontogeny.worlds.grammar.sampling import NO_SYMBOL, Strings

_SLOTS = ("SUBJECT", "OBJECT", "RELATION", "VALUE")
_VERDICTS = (UNGRAMMATICAL, "mistyped", "unseen", "seen")
_SOURCE = "generated: ontogeny.worlds.grammar"
_LICENCE = "CC0-1.0"
_VALUES_PER_ENTITY = 3
"""Values of each entity that a concept asks about, at most."""
_SYLLABLES = tuple(c + v for c in "bdfgklmnprstvz" for v in "aeiou")


@dataclass(frozen=True)
class Typed:
    kinds: int = 2
    """Kinds of subjects; each has a partner kind of objects, and properties and relations of its own."""
    entities: int = 20
    """Of each kind, subjects and objects alike."""
    properties: int = 4
    """Of each kind of subjects."""
    values: int = 10
    """Of each property."""
    shown: float = 0.3
    """Share of a property's values that are ever seen with one entity."""
    relations: int = 4
    """Verbs of each kind."""


@dataclass(frozen=True)
class TypedFacts:
    """Words by kind, and what is seen together. A value is a number within its kind, property by property."""

    subjects: Ints
    """Kind × entity: numbers of words; so are the next three."""
    objects: Ints
    relations: Ints
    values: Ints
    shown: NDArray[np.bool_]
    """Kind × entity × value: seen together."""


def typed_language(config: Typed, rng: np.random.Generator) -> Language:
    """Raises:
    BadInput: too few kinds, entities or values to tell anything apart.
    """
    _check(config)
    made = _grammar()
    frame = tuple(word for word in made.terminals if word not in _SLOTS)
    facts, names = _facts(config, rng, len(frame))
    words = (*frame, *names)
    parts = {symbol: symbol.lower() for symbol in ("Subject", "Object", "Relation", "Value", "Prep", "Copula", "And")}
    kind = Feature(
        "kind",
        "Of which kind is the subject?",
        "classes",
        lambda s: _kind(facts, s),
        tuple(f"kind {i + 1}" for i in range(config.kinds)),
    )
    part_of_speech = next(feature for feature in derivation_features(made, parts) if feature.name == "part_of_speech")
    return Language(
        made,
        words,
        (kind, part_of_speech),
        judge=lambda given, lengths: _typed_verdicts(made, facts, len(frame), given, lengths),
        verdicts=_VERDICTS,
        finish=lambda rng, strings: _fill_slots(made, facts, rng, strings),
        facts=lambda strings: _familiar_values(facts, words),
        more=(valid_value_concept(facts, words), familiar_value_concept(facts, words)),
    )


def count_valid_pairs(config: Typed) -> int:
    """Entities times the values that are valid for them: the edges that could be seen, shown or not."""
    return config.kinds * config.entities * config.properties * config.values


def _check(config: Typed) -> None:
    if config.kinds < 2 or config.entities < 10 or min(config.properties, config.relations) < 1:
        raise BadInput(
            f"{config.kinds} kinds of {config.entities} entities are too few. Take at least 2 of 10, with a property and a relation."
        )
    seen = round(config.shown * config.values)
    if not 1 <= seen < config.values:
        raise BadInput(
            f"of {config.values} values {seen} would be seen with an entity. Take `shown` so that some are and some are not."
        )


def _grammar() -> Grammar:
    """One subject has values and relations; several, joined, have relations only: a value is always that of one entity."""
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
    """The values seen with an entity are a pattern of its property, turned by the number of the entity."""
    valid = config.properties * config.values
    sizes = (config.entities, config.entities, config.relations, valid)
    pool = rng.permutation(len(_SYLLABLES) ** 3)
    if config.kinds * sum(sizes) > len(pool):
        raise BadInput(
            f"{config.kinds * sum(sizes)} words are more than there are names for ({len(pool)}). Take fewer."
        )
    names = tuple(_name(number) for number in pool[: config.kinds * sum(sizes)].tolist())
    ends = first + config.kinds * np.cumsum(sizes)
    subjects, objects, relations, values = (
        np.arange(end - config.kinds * size, end).reshape(config.kinds, size)
        for end, size in zip(ends, sizes, strict=True)
    )
    seen = np.arange(config.values) < round(config.shown * config.values)
    pattern = np.stack([[rng.permutation(seen) for _ in range(config.properties)] for _ in range(config.kinds)])
    turned = np.stack([np.roll(pattern, entity, axis=-1) for entity in range(config.entities)], axis=1)
    shown = turned.reshape(config.kinds, config.entities, valid)
    return TypedFacts(subjects, objects, relations, values, shown), names


def _name(number: int) -> str:
    parts = []
    for _ in range(3):
        number, syllable = divmod(number, len(_SYLLABLES))
        parts.append(_SYLLABLES[syllable])
    return "".join(parts)


def _fill_slots(made: Grammar, facts: TypedFacts, rng: np.random.Generator, strings: Strings) -> Strings:
    """Words in the place of slots; all of a sentence are of the kind drawn for it."""
    frame = [i for i, word in enumerate(made.terminals) if word not in _SLOTS]
    renumbered = np.full(len(made.terminals) + 1, NO_SYMBOL)
    renumbered[frame] = np.arange(len(frame))
    out = renumbered[strings.words]
    kind = rng.integers(len(facts.subjects), size=len(strings))
    for slot, words in (("SUBJECT", facts.subjects), ("OBJECT", facts.objects), ("RELATION", facts.relations)):
        row, column = np.nonzero(strings.words == made.terminals.index(slot))
        out[row, column] = words[kind[row], rng.integers(words.shape[1], size=row.size)]
    row, column = np.nonzero(strings.words == made.terminals.index("VALUE"))
    entity = out[row, 0] - facts.subjects[kind[row], 0]
    seen = np.argsort(~facts.shown, axis=-1, kind="stable")[..., : int(facts.shown[0, 0].sum())]
    value = seen[kind[row], entity, rng.integers(seen.shape[-1], size=row.size)]
    out[row, column] = facts.values[kind[row], value]
    return replace(strings, words=out)


def _typed_verdicts(made: Grammar, facts: TypedFacts, frame: int, given: Ints, lengths: Ints) -> Ints:
    """Form by the grammar, kinds by the words' tables, then whether each value was seen with the subject."""
    tables = (facts.subjects, facts.objects, facts.relations, facts.values)
    terminal, kinds = _slots(made, tables, frame)
    inside = np.arange(given.shape[1]) < lengths[:, None]
    known = np.where(inside & (given >= 0) & (given < len(terminal) - 1), given, len(terminal) - 1)
    formed = recognise(made, terminal[known], lengths)
    kind = np.where(inside, kinds[known], NO_SYMBOL)
    own = kind[:, 0] if kind.shape[1] else np.zeros(len(given), dtype=int)
    typed = formed & ((kind == NO_SYMBOL) | (kind == own[:, None])).all(1)
    row, column = np.nonzero((terminal[known] == made.terminals.index("VALUE")) & typed[:, None])
    entity = given[row, 0] - facts.subjects[own[row], 0]
    unseen = ~facts.shown[own[row], entity, given[row, column] - facts.values[own[row], 0]]
    hidden = np.bincount(row, weights=unseen, minlength=len(given)) > 0
    return np.select([~formed, ~typed, hidden], [0, 1, 2], 3)


def _slots(made: Grammar, tables: Sequence[Ints], frame: int) -> tuple[Ints, Ints]:
    """Of each word the terminal that it stands for, and its kind; the last entry is that of no word."""
    count = frame + sum(table.size for table in tables)
    terminal, kinds = np.full(count + 1, NO_SYMBOL), np.full(count + 1, NO_SYMBOL)
    terminal[:frame] = [i for i, word in enumerate(made.terminals) if word not in _SLOTS]
    for slot, table in zip(_SLOTS, tables, strict=True):
        terminal[table] = made.terminals.index(slot)
        kinds[table] = np.arange(len(table))[:, None]
    return terminal, kinds


def _kind(facts: TypedFacts, strings: Strings) -> Floats:
    """At the subject, and as long as nothing but the subject has told it."""
    own = np.full(strings.words.max(initial=0) + 1, np.nan)
    inside = facts.subjects[facts.subjects < len(own)]
    own[inside] = np.nonzero(facts.subjects < len(own))[0]
    kind = np.where(np.arange(strings.words.shape[1]) == 0, own[strings.words[:, :1]], np.nan)
    return np.where(strings.inside, kind, np.nan)


def _familiar_values(facts: TypedFacts, words: tuple[str, ...]) -> tuple[Answer, ...]:
    """Of each entity a value seen with it, and one of the next kind."""
    answers = []
    for kind, entity in np.ndindex(facts.subjects.shape):
        name, other = words[facts.subjects[kind, entity]], facts.values[(kind + 1) % len(facts.values)]
        for i, value in enumerate(np.flatnonzero(facts.shown[kind, entity])[:2]):
            wrong = words[other[(entity + value) % len(other)]]
            copula = ("is", "has")[i % 2]
            answers.append(Answer(f"{name} {copula}", f" {words[facts.values[kind, value]]}", f" {wrong}", name))
    return tuple(answers)


def valid_value_concept(facts: TypedFacts, words: tuple[str, ...]) -> Concept:
    """Values never seen with the entity: one of its kind against one of the next. What is valid for one is the false value of another
    in its group, so no count of words tells the two apart.
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
                examples += [
                    Example(f"{subject} is {value}", told, group, pair)
                    for value, told in ((right, True), (wrong, False))
                ]
                answers.append(Answer(f"{subject} is", f" {right}", f" {wrong}", group))
    return _concept("valid", examples, answers, "Is the value one that the entity can have?")


def familiar_value_concept(facts: TypedFacts, words: tuple[str, ...]) -> Concept:
    """Values of the entity's kind: one seen with it against one that was not, but was with the other entity of its group."""
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
                for told, values in ((True, right), (False, wrong)):
                    examples += [
                        Example(f"{subject} is {words[facts.values[kind, value]]}", told, group) for value in values
                    ]
    return _concept("seen", examples, list(_familiar_values(facts, words)), "Was the value ever seen with the entity?")


def _concept(name: str, examples: list[Example], answers: list[Answer], question: str) -> Concept:
    return Concept(name, tuple(examples), answers=tuple(answers), licence=_LICENCE, source=_SOURCE, question=question)
