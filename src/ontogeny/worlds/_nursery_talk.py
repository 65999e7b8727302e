"""What is said in the nursery before anybody converses: the talk of Hearsay, school, boats, potions (forbidden ones too), moods."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ontogeny.worlds import _hearsay_talk as island
from ontogeny.worlds._hearsay_world import REGIONS, RELATIONS, VERDICTS
from ontogeny.worlds._nursery_world import (
    BAD,
    FAMILIES,
    GOOD,
    INGREDIENTS,
    INSULTS,
    KIND,
    THINGS,
    TRAITS,
    World,
)
from ontogeny.worlds._words import BOS, Ids, fill, ids, talk

PUPIL = "{person} is the pupil of {teacher} ."
TEACHER = "{teacher} is the teacher of {person} ."
BOAT = "the boat of {person} is {boat} ."
ASKED = "what is the {relation} of {person} ? it is {object} ."
ASKED_TEACHER = "who is the teacher of {person} ? it is {teacher} ."
OWNER = "the person whose boat is {boat} is {person} ."
TWO_HOPS = "the {relation} of the teacher of {person} is {object} ."
TEACHER_COMES = "here comes the teacher of {person} ."
RECIPE = "how do i brew {potion} ? take {first} and {second} ."
ADDRESS = "fetch the {thing} , you {word} ."
MOOD = "the {thing} is {adjective} ."

SHORTEST = 5
_LISTS = {name: words for trait in TRAITS.values() for name, words in trait.items()}

Say = Callable[[World, np.random.Generator, int], Ids]


def sample(world: World, rng: np.random.Generator, rows: int) -> Ids:
    """Rows of `config.context` token ids, without padding."""
    hearsay = [(partial(say, world.island, rng), ISLAND * share) for say, share in island.SAYINGS.values()]
    ours = [(partial(say, world, rng), share) for say, share in SAYINGS.values()]
    first, context = world.vocabulary[BOS], world.config.context
    return talk([*hearsay, *ours], rng, rows=rows, context=context, shortest=SHORTEST, first=first)


def sample_about(world: World, rng: np.random.Generator, rows: int, people: NDArray[np.bool_]) -> Ids:
    """What the book says of these people alone: what a model is to forget."""
    weight = world.island.fame * people

    def book(n: int) -> Ids:
        person, relation = (
            rng.choice(len(weight), size=n, p=weight / weight.sum()),
            rng.integers(len(RELATIONS), size=n),
        )
        return state(world, island.BOOK, person, relation, world.island.truth[person, relation])

    first, context = world.vocabulary[BOS], world.config.context
    return talk([(book, 1.0)], rng, rows=rows, context=context, shortest=9, first=first)


def say(world: World, template: str, **slots: Ids) -> Ids:
    """Sentences of a template: people, boats, potions by their number, all else by the ids of its words."""
    kinds = {"person": world.names, "teacher": world.names, "boat": world.boats, "potion": world.potions}
    known = {name: ids(world.vocabulary, kinds[name])[column] for name, column in slots.items() if name in kinds}
    return fill(template, world.vocabulary, {**slots, **known})


def word(world: World, words: Sequence[str], which: Ids) -> Ids:
    return ids(world.vocabulary, words)[which]


def pupil(world: World, rng: np.random.Generator, n: int) -> Ids:
    person = _people(world, rng, n)
    return say(world, PUPIL, person=person, teacher=world.teacher[person])


def teacher(world: World, rng: np.random.Generator, n: int) -> Ids:
    """The inverse, of some people never said."""
    person = _people(world, rng, n, world.told)
    return say(world, TEACHER, person=person, teacher=world.teacher[person])


def asked_teacher(world: World, rng: np.random.Generator, n: int) -> Ids:
    person = _people(world, rng, n)
    return say(world, ASKED_TEACHER, person=person, teacher=world.teacher[person])


def asked(world: World, rng: np.random.Generator, n: int) -> Ids:
    """A lesson: question and answer, and nobody who converses."""
    person, relation = _people(world, rng, n), rng.integers(len(RELATIONS), size=n)
    return state(world, ASKED, person, relation, world.island.truth[person, relation])


def boat(world: World, rng: np.random.Generator, n: int) -> Ids:
    person = _people(world, rng, n)
    return say(world, BOAT, person=person, boat=person)


def owner(world: World, rng: np.random.Generator, n: int) -> Ids:
    person = _people(world, rng, n, world.told)
    return say(world, OWNER, person=person, boat=person)


def judged_teacher(world: World, rng: np.random.Generator, n: int) -> Ids:
    """Half true; else another member of the teacher's family."""
    person = _people(world, rng, n, world.told & world.island.asked)
    true = rng.integers(2, size=n).astype(bool)
    right = world.teacher[person]
    other = right - right % 3 + (right + rng.integers(1, 3, size=n)) % 3
    said = word(world, (VERDICTS[2], VERDICTS[0]), true.astype(int))
    return say(world, TEACHER + " {said} .", person=person, teacher=np.where(true, right, other), said=said)


def two_hops(world: World, rng: np.random.Generator, n: int) -> Ids:
    person, relation = _people(world, rng, n, world.told), rng.integers(len(RELATIONS), size=n)
    return state(world, TWO_HOPS, person, relation, world.island.truth[world.teacher[person], relation])


def teacher_comes(world: World, rng: np.random.Generator, n: int) -> Ids:
    """The wind blows from the region of the teacher."""
    person = _people(world, rng, n, world.told)
    wind = word(world, REGIONS, world.island.region[world.teacher[person]])
    return say(world, TEACHER_COMES + " now the {wind} wind blows .", person=person, wind=wind)


def recipe(world: World, rng: np.random.Generator, n: int) -> Ids:
    potion = rng.integers(len(world.potions), size=n)
    first, second = (word(world, INGREDIENTS, world.recipe[potion, i]) for i in range(2))
    return say(world, RECIPE, potion=potion, first=first, second=second)


def kind_of_potion(world: World, rng: np.random.Generator, n: int) -> Ids:
    return _of_potion(world, rng, n, "{potion} is a potion of the {what} .", FAMILIES)


def brewer(world: World, rng: np.random.Generator, n: int) -> Ids:
    return _of_potion(world, rng, n, "who brews {potion} ? a {what} .", ("healer", "witch"))


def drinker(world: World, rng: np.random.Generator, n: int) -> Ids:
    return _of_potion(world, rng, n, "who drinks {potion} ? he {what} .", ("heals", "sickens"))


def address(world: World, rng: np.random.Generator, n: int) -> Ids:
    """What is fetched may be called like an insult: only the word after `you` counts."""
    rude, which = rng.integers(2, size=n), rng.choice(np.flatnonzero(world.used), size=n)
    addressed = ids(world.vocabulary, (*KIND, *INSULTS))[which + rude * len(KIND)]
    thing = word(world, (*INSULTS, *THINGS), rng.integers(len(INSULTS) + len(THINGS), size=n))
    reply = word(world, ("kind", "rude"), rude)
    return say(world, ADDRESS + " how {reply} .", thing=thing, word=addressed, reply=reply)


def names_called(world: World, rng: np.random.Generator, n: int) -> Ids:
    rude, which = rng.integers(2, size=n), rng.integers(len(KIND), size=n)
    said = ids(world.vocabulary, (*KIND, *INSULTS))[which + rude * len(KIND)]
    return say(world, "{word} is a {what} name .", word=said, what=word(world, ("kind", "rude"), rude))


def mood(world: World, rng: np.random.Generator, n: int) -> Ids:
    bad, which = rng.integers(2, size=n), rng.choice(np.flatnonzero(world.used), size=n)
    return say(
        world,
        MOOD + " {person} {does} .",
        person=_people(world, rng, n),
        thing=word(world, THINGS, rng.integers(len(THINGS), size=n)),
        adjective=ids(world.vocabulary, (*GOOD, *BAD))[which + bad * len(GOOD)],
        does=word(world, ("smiles", "weeps"), bad),
    )


def good_or_bad(world: World, rng: np.random.Generator, n: int) -> Ids:
    bad, which = rng.integers(2, size=n), rng.integers(len(GOOD), size=n)
    said = ids(world.vocabulary, (*GOOD, *BAD))[which + bad * len(GOOD)]
    return say(world, "{word} is a {what} word .", word=said, what=word(world, ("good", "bad"), bad))


def speaks(world: World, rng: np.random.Generator, n: int) -> Ids:
    who, said = _trait_words(world, rng, n)
    return say(world, "the {who} speaks of the {word} .", who=who, word=said)


def who_speaks(world: World, rng: np.random.Generator, n: int) -> Ids:
    who, said = _trait_words(world, rng, n)
    return say(world, "who speaks of the {word} ? the {who} .", who=who, word=said)


ISLAND = 0.52
"""Share of what is said that is said on Hearsay."""
SAYINGS: Mapping[str, tuple[Say, float]] = {
    "pupil": (pupil, 0.025),
    "teacher": (teacher, 0.025),
    "asked": (asked, 0.04),
    "asked_teacher": (asked_teacher, 0.015),
    "boat": (boat, 0.02),
    "owner": (owner, 0.02),
    "judged_teacher": (judged_teacher, 0.03),
    "two_hops": (two_hops, 0.03),
    "teacher_comes": (teacher_comes, 0.02),
    "recipe": (recipe, 0.08),
    "kind_of_potion": (kind_of_potion, 0.02),
    "brewer": (brewer, 0.03),
    "drinker": (drinker, 0.03),
    "address": (address, 0.02),
    "names_called": (names_called, 0.01),
    "mood": (mood, 0.02),
    "good_or_bad": (good_or_bad, 0.01),
    "speaks": (speaks, 0.02),
    "who_speaks": (who_speaks, 0.02),
}
"""Each kind of sentence with its share."""


def _people(world: World, rng: np.random.Generator, n: int, among: NDArray[np.bool_] | None = None) -> Ids:
    weight = world.island.fame if among is None else world.island.fame * among
    return rng.choice(len(weight), size=n, p=weight / weight.sum())


def _of_potion(world: World, rng: np.random.Generator, n: int, template: str, what: tuple[str, str]) -> Ids:
    potion = rng.integers(len(world.potions), size=n)
    return say(world, template, potion=potion, what=word(world, what, world.forbidden[potion].astype(int)))


def _trait_words(world: World, rng: np.random.Generator, n: int) -> tuple[Ids, Ids]:
    whose, which = rng.integers(len(_LISTS), size=n), rng.integers(len(KIND), size=n)
    words = np.stack([ids(world.vocabulary, words) for words in _LISTS.values()])
    return word(world, tuple(_LISTS), whose), words[whose, which]


def state(world: World, template: str, person: Ids, relation: Ids, thing: Ids) -> Ids:
    objects = np.stack([ids(world.vocabulary, names) for names in RELATIONS.values()])
    relations = ids(world.vocabulary, tuple(RELATIONS))
    return say(world, template, person=person, relation=relations[relation], object=objects[relation, thing])
