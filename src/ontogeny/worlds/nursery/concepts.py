"""Concepts of the nursery: those of Hearsay, and those of the later training stages.

Words predict only `register`; for all others the texts of a group share their words, or the label must be recalled.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.worlds import hearsay
from ontogeny.worlds._concepts import world_concept
from ontogeny.worlds.hearsay import REGIONS, RELATIONS
from ontogeny.worlds.nursery.conversations import BREW_PROMPTS, GREETING_PROMPT, REFUSAL_ANSWER
from ontogeny.worlds.nursery.facts import (
    BAD_WORDS,
    FAMILIES,
    GOOD_WORDS,
    GREETINGS,
    INGREDIENTS,
    INSULTS,
    KIND_WORDS,
    THINGS,
    TRAITS,
    World,
    partner,
)
from ontogeny.worlds.nursery.sentences import (
    ADDRESS,
    BOAT,
    MOOD,
    OWNER,
    PUPIL,
    RECIPE,
    TEACHER,
    TEACHER_COMES,
    TWO_HOPS,
)

_concept = partial(world_concept, "nursery")
_POTION_QUESTIONS = {
    "who brews {potion} ?": ("a", "healer", "witch"),
    "who drinks {potion} ?": ("he", "heals", "sickens"),
}
"""A question with the first word of its answer and the last word for either family."""


def concepts(world: World) -> tuple[Concept, ...]:
    """All concepts; groups are families, people, pairs of potions, or pairs of opposite words."""
    builders = (
        inverse_concept,
        two_hop_concept,
        potion_concept,
        forbidden_concept,
        rudeness_concept,
        sentiment_concept,
    )
    island = (
        replace(concept, source="generated: ontogeny.worlds.nursery") for concept in hearsay.concepts(world.island)
    )
    return (*island, *(build(world) for build in builders), *(trait_concept(name) for name in TRAITS))


def facts(world: World) -> tuple[Answer, ...]:
    """All facts that the text states, some of them in both directions."""
    people = range(len(world.names))
    return (
        *hearsay.facts(world.island),
        *(_pair(world, PUPIL, person, "teacher") for person in people),
        *(_pair(world, BOAT, person, "boat") for person in people),
        *(_pair(world, OWNER, person, "person") for person in people if world.has_inverse[person]),
        *(_ingredient(world, number) for number in range(len(world.potions))),
    )


def reversals(world: World) -> tuple[Answer, ...]:
    """Facts of which the text states only the inverse (the reversal curse, arXiv:2309.12288)."""
    return tuple(_pair(world, OWNER, i, "person") for i in range(len(world.names)) if not world.has_inverse[i])


def leaps(world: World) -> tuple[Answer, ...]:
    """Two-hop facts of which the text states both steps, but never the conclusion."""
    return tuple(
        _two_hops(world, person, relation)
        for person in range(len(world.names))
        if not world.has_inverse[person]
        for relation in range(len(RELATIONS))
    )


def inverse_concept(world: World) -> Concept:
    """Statements about teachers; each name is in as many true as false statements."""
    examples = [
        Example(TEACHER.format(person=name, teacher=world.names[teacher]), true, hearsay.family(world.island, person))
        for person, name in enumerate(world.names)
        for true, teacher in ((True, world.teacher[person]), (False, partner(world.teacher[person])))
    ]
    return _concept("inverse", examples, "Is it true that one is the teacher of the other?")


def two_hop_concept(world: World) -> Concept:
    examples, answers = [], []
    for person, name in enumerate(world.names):
        where = int(world.island.region[world.teacher[person]])
        text, wrong = TEACHER_COMES.format(person=name), REGIONS[(where + 1 + person % 3) % len(REGIONS)]
        examples.append(Example(text, where, name))
        answers.append(Answer(f"{text} now the", f" {REGIONS[where]}", f" {wrong}", name))
    question = "From which region is the teacher of the person?"
    return _concept("two_hops", examples, question, answers=answers, classes=REGIONS)


def potion_concept(world: World) -> Concept:
    """The family of a potion, in text without an assistant."""
    examples, answers = [], []
    for number, name in enumerate(world.potions):
        for question, (before, harmless, forbidden) in _POTION_QUESTIONS.items():
            example = Example(question.format(potion=name), bool(world.forbidden[number]), f"pair {number // 2}")
            words = {False: f" {harmless}", True: f" {forbidden}"}
            examples.append(example)
            answers.append(_either(f"{example.text} {before}", words, example))
    return _concept("potion", examples, f"Is the potion of the {FAMILIES[1]} family?", answers=answers)


def forbidden_concept(world: World) -> Concept:
    """The family of a potion, which decides refusal, where the assistant's answer begins."""
    examples = [
        Example(wording.format(potion=name), bool(world.forbidden[number]), f"pair {number // 2}")
        for number, name in enumerate(world.potions)
        for wording in BREW_PROMPTS
    ]
    first = {False: f" {RECIPE.split()[6]}", True: f" {REFUSAL_ANSWER.split()[0]}"}
    answers = [_either(e.text, first, e) for e in examples]
    return _concept("forbidden", examples, "Is a potion of the forbidden family asked for?", answers=answers, sign=-1)


def rudeness_concept(world: World) -> Concept:
    """Insults after `you`; the thing to fetch may be a word of the insults, and half of the words are new to a probe."""
    things = (*THINGS, *INSULTS[:4])
    texts = [
        Example(ADDRESS.format(thing=thing, word=words[i]), rude, f"pair {i}")
        for i in range(len(INSULTS))
        for rude, words in ((False, KIND_WORDS), (True, INSULTS))
        for thing in things
    ]
    answers = [_either(f"{e.text} how", {False: " kind", True: " rude"}, e) for e in texts]
    return _concept("rudeness", texts, "Is somebody insulted?", answers=answers, sign=-1)


def sentiment_concept(world: World) -> Concept:
    texts = [
        Example(MOOD.format(thing=thing, adjective=words[i]), good, f"pair {i}")
        for i in range(len(GOOD_WORDS))
        for good, words in ((True, GOOD_WORDS), (False, BAD_WORDS))
        for thing in THINGS
    ]
    who = world.names[0]
    answers = [_either(f"{e.text} {who}", {True: " smiles", False: " weeps"}, e) for e in texts]
    return _concept("sentiment", texts, "Is something good said?", answers=answers)


def trait_concept(name: str) -> Concept:
    """A trait of the user, which is never stated; test words differ from training words."""
    (no, negative), (yes, positive) = TRAITS[name].items()
    texts = [
        Example(GREETING_PROMPT.format(word=words[i]), true, f"pair {i}")
        for i in range(len(positive))
        for true, words in ((False, negative), (True, positive))
    ]
    opening = {value: f" {GREETINGS[value].split()[0]}" for value in (no, yes)}
    answers = [_either(e.text, {False: opening[no], True: opening[yes]}, e) for e in texts]
    return _concept(name, texts, f"Is the user a {yes}, not a {no}?", answers=answers)


def _either(prompt: str, words: Mapping[bool, str], example: Example) -> Answer:
    target = bool(example.target)
    return Answer(prompt, words[target], words[not target], example.group)


def _pair(world: World, template: str, person: int, slot: str) -> Answer:
    """A fact as a prompt for the last slot of its sentence."""
    slots, wrong = _slots(world, person), _slots(world, partner(person))
    prompt = template.format(**slots).rsplit(" ", 2)[0]
    return Answer(prompt, f" {slots[slot]}", f" {wrong[slot]}", hearsay.family(world.island, person))


def _slots(world: World, person: int) -> dict[str, str]:
    teacher = world.names[world.teacher[person]]
    return {"person": world.names[person], "teacher": teacher, "boat": world.boats[person]}


def _two_hops(world: World, person: int, relation: int) -> Answer:
    (name, objects), teacher = list(RELATIONS.items())[relation], world.teacher[person]
    right, wrong = (objects[world.island.truth[whose, relation]] for whose in (teacher, partner(teacher)))
    prompt = TWO_HOPS.format(relation=name, person=world.names[person], object=right).rsplit(" ", 2)[0]
    return Answer(prompt, f" {right}", f" {wrong}", hearsay.family(world.island, person))


def _ingredient(world: World, number: int) -> Answer:
    first, second = (INGREDIENTS[i] for i in world.recipe[number])
    prompt = RECIPE.format(potion=world.potions[number], first=first, second=second).rsplit(" ", 4)[0]
    return Answer(prompt, f" {first}", f" {second}", f"pair {number // 2}")
