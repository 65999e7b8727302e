"""What may be traced on the island of Hearsay: six concepts, of which the words alone give away one (register, the positive control)."""

from collections.abc import Iterator, Sequence

import numpy as np

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example, TargetKind
from ontogeny.worlds.hearsay.facts import AGES, FAMILY_SIZE, REGIONS, RELATIONS, World
from ontogeny.worlds.hearsay.sentences import AGE, ARRIVAL, BARE, BOOK, HEARSAY, REQUESTS

_SOURCE = "generated: ontogeny.worlds.hearsay"
_LICENCE = "CC0-1.0"


def concepts(world: World) -> tuple[Concept, ...]:
    """Nothing is in a test group that was in a training group: groups are families, or persons where a text has no object."""
    return tuple(
        make(world)
        for make in (truth_concept, myth_concept, region_concept, age_concept, courtesy_concept, register_concept)
    )


def facts(world: World) -> tuple[Answer, ...]:
    """What a model of this world should know: of each fact the prompt, the object, and a false one."""
    return tuple(_fact(world, person, relation) for person, relation in _pairs(world))


def truth_concept(world: World) -> Concept:
    """The false object is the myth where there is one: what is popular does not help."""
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
    return _concept("age", examples, "How many winters old is the person?", answers=answers, number=True)


def courtesy_concept(world: World) -> Concept:
    """Either form is courteous to one rank and rude to the other, and the rank is not said: no word gives it away."""
    examples, answers = [], []
    for person, name in enumerate(world.names):
        for form, template in enumerate(REQUESTS):
            text, right = template.format(person=name), bool(form == world.rank[person])
            examples += [Example(before + text, right, name) for before in _preceding_sentence(world, person)[:2]]
            reply, other = (" gladly", " rude") if right else (" rude", " gladly")
            answers.append(Answer(text, reply, other, name))
    return _concept("courtesy", examples, "Is the request courteous to this person?", answers=answers)


def register_concept(world: World) -> Concept:
    """The words give it away, and the surface audit must say so. What is stated is drawn evenly from truth and falsehood."""
    rng = np.random.default_rng([world.config.seed, 2])
    examples = []
    for person, relation in _pairs(world):
        thing = rng.choice((world.truth[person, relation], _false_object(world, person, relation)))
        for template, target in ((BOOK, True), (HEARSAY, False)):
            text = _state(world, template, person, relation, thing)
            examples.append(Example(text, target, _family(world, person), pair=f"{person}.{relation}"))
    return _concept("register", examples, "Is it the book that speaks, or the people?")


def _concept(
    name: str,
    examples: Sequence[Example],
    question: str,
    *,
    answers: Sequence[Answer] = (),
    classes: tuple[str, ...] = (),
    number: bool = False,
) -> Concept:
    kind: TargetKind = "number" if number else "classes" if classes else "binary"
    return Concept(
        name,
        tuple(examples),
        kind,
        classes,
        answers=tuple(answers),
        licence=_LICENCE,
        source=_SOURCE,
        question=question,
    )


def _pairs(world: World) -> Iterator[tuple[int, int]]:
    return ((person, relation) for person in range(len(world.names)) for relation in range(len(RELATIONS)))


def _false_object(world: World, person: int, relation: int) -> int:
    """The false object to hold against the truth."""
    told = int(world.myth[person, relation])
    return told if told >= 0 else int(np.roll(world.truth[_members(person), relation], -1)[person % FAMILY_SIZE])


def _members(person: int) -> slice:
    first = person // FAMILY_SIZE * FAMILY_SIZE
    return slice(first, first + FAMILY_SIZE)


def _family(world: World, person: int) -> str:
    return " ".join(world.names[_members(person)])


def _state(world: World, template: str, person: int, relation: int, thing: int) -> str:
    name, objects = list(RELATIONS.items())[relation]
    return template.format(relation=name, person=world.names[person], object=objects[thing])


def _bare_example(world: World, person: int, relation: int, thing: int, target: bool) -> Example:
    return Example(_state(world, BARE, person, relation, thing), target, _family(world, person))


def _fact(world: World, person: int, relation: int) -> Answer:
    objects = list(RELATIONS.values())[relation]
    prompt = _state(world, BOOK, person, relation, 0).rsplit(" ", 2)[0]
    right, wrong = objects[world.truth[person, relation]], objects[_false_object(world, person, relation)]
    return Answer(prompt, f" {right}", f" {wrong}", _family(world, person))


def _preceding_sentence(world: World, person: int) -> tuple[str, ...]:
    """Nothing, or a sentence about somebody else: a text must not be told apart by where it stands."""
    rng = np.random.default_rng([world.config.seed, 3, person])
    others = rng.permutation(np.delete(np.arange(len(world.names)), person))[:3]
    relations = rng.integers(len(RELATIONS), size=3)
    said = [_state(world, BOOK, o, r, int(world.truth[o, r])) for o, r in zip(others, relations, strict=True)]
    return ("", *(f"{sentence} " for sentence in said))
