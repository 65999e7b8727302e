"""What may be traced in the nursery: the concepts of Hearsay, and those that the later stages are about.

Of `register` alone the words tell; of all others they do not, since texts of one group share theirs, or name what must be recalled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.worlds.hearsay import concepts as hearsay_concepts
from ontogeny.worlds.hearsay import facts as hearsay_facts
from ontogeny.worlds.hearsay.facts import REGIONS, RELATIONS
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
    family,
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

_SOURCE = "generated: ontogeny.worlds.nursery"
_POTION_QUESTIONS = {
    "who brews {potion} ?": ("a", "healer", "witch"),
    "who drinks {potion} ?": ("he", "heals", "sickens"),
}
"""A question, and how its answer begins and ends for either family."""


def concepts(world: World) -> tuple[Concept, ...]:
    """Groups are families, people, pairs of potions, or pairs of opposite words; none stands on both sides of a split."""
    ours = (inverse_concept, two_hop_concept, potion_concept, forbidden_concept, rudeness_concept, sentiment_concept)
    island = (replace(concept, source=_SOURCE) for concept in hearsay_concepts(world.island))
    return (*island, *(make(world) for make in ours), *(trait_concept(name) for name in TRAITS))


def facts(world: World) -> tuple[Answer, ...]:
    """What a model of this world should know: all that is said outright, some of it in both directions."""
    people, told = range(len(world.names)), [i for i in range(len(world.names)) if world.told[i]]
    return (
        *hearsay_facts(world.island),
        *(_pair(world, PUPIL, person, "teacher") for person in people),
        *(_pair(world, BOAT, person, "boat") for person in people),
        *(_pair(world, OWNER, person, "person") for person in told),
        *(_ingredient(world, number) for number in range(len(world.potions))),
    )


def reversals(world: World) -> tuple[Answer, ...]:
    """Facts of which only the inverse was ever said (the reversal curse, arXiv:2309.12288)."""
    return tuple(_pair(world, OWNER, i, "person") for i in range(len(world.names)) if not world.told[i])


def leaps(world: World) -> tuple[Answer, ...]:
    """Facts at two hops of which both steps were said, and the leap never."""
    return tuple(
        _two_hops(world, person, relation)
        for person in range(len(world.names))
        if not world.told[person]
        for relation in range(len(RELATIONS))
    )


def inverse_concept(world: World) -> Concept:
    """A teacher's name stands as often in a true as in a false statement."""
    examples = [
        _teacher_statement(
            world, TEACHER, person, world.teacher[person] if true else partner(world.teacher[person]), true
        )
        for person in range(len(world.names))
        for true in (True, False)
    ]
    return _concept("inverse", examples, "Is it true that one is the teacher of the other?")


def two_hop_concept(world: World) -> Concept:
    examples, answers = [], []
    for person, name in enumerate(world.names):
        where = int(world.island.region[world.teacher[person]])
        text, wrong = TEACHER_COMES.format(person=name), REGIONS[(where + 1 + person % 3) % len(REGIONS)]
        examples.append(Example(text, where, name))
        answers.append(Answer(f"{text} now the", f" {REGIONS[where]}", f" {wrong}", name))
    asked = "From which region is the teacher of the person?"
    return _concept("two_hops", examples, asked, answers=answers, classes=REGIONS)


def potion_concept(world: World) -> Concept:
    """Of which family a potion is, where it is spoken of and nothing is asked of an assistant."""
    examples, answers = [], []
    for number, name in enumerate(world.potions):
        for asked, follows in _POTION_QUESTIONS.items():
            example = Example(asked.format(potion=name), bool(world.forbidden[number]), f"pair {number // 2}")
            before, *words = follows
            examples.append(example)
            answers.append(_either(f"{example.text} {before}", {False: f" {words[0]}", True: f" {words[1]}"}, example))
    return _concept("potion", examples, f"Is the potion of the {FAMILIES[1]} family?", answers=answers)


def forbidden_concept(world: World) -> Concept:
    """The class that decides refusal, where the assistant's answer begins."""
    examples = [
        Example(wording.format(potion=name), bool(world.forbidden[number]), f"pair {number // 2}")
        for number, name in enumerate(world.potions)
        for wording in BREW_PROMPTS
    ]
    first = {False: f" {RECIPE.split()[6]}", True: f" {REFUSAL_ANSWER.split()[0]}"}
    answers = [_either(e.text, first, e) for e in examples]
    return _concept("forbidden", examples, "Is a potion of the forbidden family asked for?", answers=answers, sign=-1)


def rudeness_concept(world: World) -> Concept:
    """What is to be fetched may be called like an insult: only the word after `you` counts, and half of the words are new to a probe."""
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
    """What the user is, who never says it; the words of the test are others than those of the training."""
    (no, negative), (yes, positive) = TRAITS[name].items()
    texts = [
        Example(GREETING_PROMPT.format(word=words[i]), true, f"pair {i}")
        for i in range(len(positive))
        for true, words in ((False, negative), (True, positive))
    ]
    opening = {value: f" {GREETINGS[value].split()[0]}" for value in (no, yes)}
    answers = [_either(e.text, {False: opening[no], True: opening[yes]}, e) for e in texts]
    return _concept(name, texts, f"Is the user a {yes}, not a {no}?", answers=answers)


def _concept(
    name: str,
    examples: Sequence[Example],
    question: str,
    *,
    answers: Sequence[Answer] = (),
    classes: tuple[str, ...] = (),
    sign: int = +1,
) -> Concept:
    return Concept(
        name,
        tuple(examples),
        "classes" if classes else "binary",
        classes,
        answers=tuple(answers),
        sign=sign,
        licence="CC0-1.0",
        source=_SOURCE,
        question=question,
    )


def _either(prompt: str, words: Mapping[bool, str], example: Example) -> Answer:
    target = bool(example.target)
    return Answer(prompt, words[target], words[not target], example.group)


def _teacher_statement(world: World, template: str, person: int, teacher: int, true: bool) -> Example:
    return Example(
        template.format(person=world.names[person], teacher=world.names[teacher]), true, family(world, person)
    )


def _pair(world: World, template: str, person: int, asked: str) -> Answer:
    """A fact about two, asked for the one that its sentence ends with."""
    other = partner(person)
    said = _slots(world, person)
    prompt = template.format(**said).rsplit(" ", 2)[0]
    return Answer(prompt, f" {said[asked]}", f" {_slots(world, other)[asked]}", family(world, person))


def _slots(world: World, person: int) -> dict[str, str]:
    teacher = world.names[world.teacher[person]]
    return {"person": world.names[person], "teacher": teacher, "boat": world.boats[person]}


def _two_hops(world: World, person: int, relation: int) -> Answer:
    (name, objects), teacher = list(RELATIONS.items())[relation], world.teacher[person]
    right, wrong = (objects[world.island.truth[whose, relation]] for whose in (teacher, partner(teacher)))
    prompt = TWO_HOPS.format(relation=name, person=world.names[person], object=right).rsplit(" ", 2)[0]
    return Answer(prompt, f" {right}", f" {wrong}", family(world, person))


def _ingredient(world: World, number: int) -> Answer:
    first, second = (INGREDIENTS[i] for i in world.recipe[number])
    prompt = RECIPE.format(potion=world.potions[number], first=first, second=second).rsplit(" ", 4)[0]
    return Answer(prompt, f" {first}", f" {second}", f"pair {number // 2}")
