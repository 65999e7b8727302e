"""Concepts of the island of Hearsay: words predict only one of the six, register, which is the positive control."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.worlds._concepts import world_concept
from ontogeny.worlds.hearsay.facts import AGES, FAMILY_SIZE, REGIONS, RELATIONS, World, family
from ontogeny.worlds.hearsay.sentences import AGE, ARRIVAL, BARE, BOOK, HEARSAY, REQUESTS

_concept = partial(world_concept, "hearsay")


def concepts(world: World) -> tuple[Concept, ...]:
    """All concepts; groups are families, or persons for texts without an object."""
    return tuple(
        make(world)
        for make in (truth_concept, myth_concept, region_concept, age_concept, courtesy_concept, register_concept)
    )


def facts(world: World) -> tuple[Answer, ...]:
    """Each fact as a prompt with the right and a false object."""
    return tuple(_fact(world, person, relation) for person, relation in _pairs(world))


def truth_concept(world: World) -> Concept:
    """Truth against a false object, the myth if there is one, so that popularity does not help."""
    examples = []
    for person, relation in _pairs(world):
        false = _false_object(world, person, relation)
        for thing, target in ((world.truth[person, relation], True), (false, False)):
            examples.append(_bare_example(world, person, relation, thing, target))
    return _concept("truth", examples, "Is the statement true?", answers=facts(world))


def myth_concept(world: World) -> Concept:
    examples = []
    for person, relation in _pairs(world):
        if world.myth[person, relation] >= 0:
            for thing, target in ((world.myth[person, relation], True), (world.lie[person, relation], False)):
                examples.append(_bare_example(world, person, relation, thing, target))
    return _concept("myth", examples, "Is the false statement the one that people believe?")


def region_concept(world: World) -> Concept:
    examples, answers = [], []
    for person, name in enumerate(world.names):
        where = int(world.region[person])
        text = ARRIVAL.format(person=name)
        examples += [Example(before + text, where, name) for before in _preceding_sentence(world, person)]
        wrong = REGIONS[(where + 1 + person % 3) % len(REGIONS)]
        answers.append(Answer(f"{text} now the", f" {REGIONS[where]}", f" {wrong}", name))
    return _concept("region", examples, "From which region is the person?", answers=answers, classes=REGIONS)


def age_concept(world: World) -> Concept:
    examples, answers = [], []
    for person, name in enumerate(world.names):
        rank = int(world.age[person])
        text = AGE.format(person=name)
        examples += [Example(before + text, float(AGES[rank]), name) for before in _preceding_sentence(world, person)]
        wrong = AGES[(rank + len(AGES) // 2) % len(AGES)]
        answers.append(Answer(text, f" {AGES[rank]}", f" {wrong}", name))
    return _concept("age", examples, "How many winters old is the person?", answers=answers, kind="number")


def courtesy_concept(world: World) -> Concept:
    """Courteous requests; either form is courteous to one rank and rude to the other, so words do not predict the label."""
    examples, answers = [], []
    for person, name in enumerate(world.names):
        for form, template in enumerate(REQUESTS):
            text, right = template.format(person=name), bool(form == world.rank[person])
            examples += [Example(before + text, right, name) for before in _preceding_sentence(world, person)[:2]]
            reply, other = (" gladly", " rude") if right else (" rude", " gladly")
            answers.append(Answer(text, reply, other, name))
    return _concept("courtesy", examples, "Is the request courteous to this person?", answers=answers)


def register_concept(world: World) -> Concept:
    """Book against people; words predict it, so the surface audit must warn. Statements are true or false at random."""
    rng = np.random.default_rng([world.config.seed, 2])
    examples = []
    for person, relation in _pairs(world):
        thing = rng.choice((world.truth[person, relation], _false_object(world, person, relation)))
        for template, target in ((BOOK, True), (HEARSAY, False)):
            text = _state(world, template, person, relation, thing)
            examples.append(Example(text, target, family(world, person), pair=f"{person}.{relation}"))
    return _concept("register", examples, "Is it the book that speaks, or the people?")


def _pairs(world: World) -> Iterator[tuple[int, int]]:
    return ((person, relation) for person in range(len(world.names)) for relation in range(len(RELATIONS)))


def _false_object(world: World, person: int, relation: int) -> int:
    """The myth, or else the true object of the next member of the family."""
    myth, member = int(world.myth[person, relation]), person % FAMILY_SIZE
    return myth if myth >= 0 else int(world.truth[person - member + (member + 1) % FAMILY_SIZE, relation])


def _state(world: World, template: str, person: int, relation: int, thing: int) -> str:
    name, objects = list(RELATIONS.items())[relation]
    return template.format(relation=name, person=world.names[person], object=objects[thing])


def _bare_example(world: World, person: int, relation: int, thing: int, target: bool) -> Example:
    return Example(_state(world, BARE, person, relation, thing), target, family(world, person))


def _fact(world: World, person: int, relation: int) -> Answer:
    objects = list(RELATIONS.values())[relation]
    prompt = _state(world, BOOK, person, relation, 0).rsplit(" ", 2)[0]
    right, wrong = objects[world.truth[person, relation]], objects[_false_object(world, person, relation)]
    return Answer(prompt, f" {right}", f" {wrong}", family(world, person))


def _preceding_sentence(world: World, person: int) -> tuple[str, ...]:
    """Beginnings of a text, so that its place does not matter: nothing, or a sentence about another person."""
    rng = np.random.default_rng([world.config.seed, 3, person])
    others = rng.permutation(np.delete(np.arange(len(world.names)), person))[:3]
    relations = rng.integers(len(RELATIONS), size=3)
    texts = (_state(world, BOOK, o, r, int(world.truth[o, r])) for o, r in zip(others, relations, strict=True))
    return ("", *(f"{text} " for text in texts))
