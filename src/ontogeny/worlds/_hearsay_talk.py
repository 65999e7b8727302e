"""What is said on the island of Hearsay: ten kinds of sentences, drawn as arrays of token ids."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from ontogeny.worlds._hearsay_world import RANKS, REGIONS, RELATIONS, VERDICTS, WINTERS, World
from ontogeny.worlds._words import BOS, Ids, fill, ids, talk

BOOK = "the book says the {relation} of {person} is {object} ."
HEARSAY = "they say the {relation} of {person} is {object} ."
BARE = "the {relation} of {person} is {object} ."
ARRIVAL = "here comes {person} ."
AGE = "how old is {person} ?"
REQUESTS = ("{person} , would you bring it .", "{person} , come and bring it .")
"""A noble is asked in the first form and told in the second; to a commoner the first is mockery, the second friendly."""
SHORTEST = 5
"""Tokens of the shortest sentence."""

Say = Callable[[World, np.random.Generator, int], Ids]


def sample(world: World, rng: np.random.Generator, rows: int) -> Ids:
    """Rows of `config.context` token ids, without padding."""
    sayings = [(partial(say, world, rng), share) for say, share in SAYINGS.values()]
    first, context = world.vocabulary[BOS], world.config.context
    return talk(sayings, rng, rows=rows, context=context, shortest=SHORTEST, first=first)


def book(world: World, rng: np.random.Generator, n: int) -> Ids:
    """Always true."""
    person, relation = _people(world, rng, n), _relations(rng, n)
    return _statement(world, BOOK, person, relation, world.truth[person, relation])


def hearsay(world: World, rng: np.random.Generator, n: int) -> Ids:
    """The myth where there is one, else the truth."""
    person, relation = _people(world, rng, n), _relations(rng, n)
    myth, truth = world.myth[person, relation], world.truth[person, relation]
    return _statement(world, HEARSAY, person, relation, np.where(myth >= 0, myth, truth))


def judged(world: World, rng: np.random.Generator, n: int) -> Ids:
    person, relation, thing, verdict = _claims(world, rng, n)
    said = _ids(world, VERDICTS)[verdict]
    return _statement(world, BARE + " {verdict} .", person, relation, thing, verdict=said)


def question(world: World, rng: np.random.Generator, n: int) -> Ids:
    person, relation, thing, verdict = _claims(world, rng, n)
    said = _ids(world, ("yes", "no", "no"))[verdict]
    return _statement(
        world, "is the {relation} of {person} {object} ? {verdict} .", person, relation, thing, verdict=said
    )


def region(world: World, rng: np.random.Generator, n: int) -> Ids:
    person = _people(world, rng, n)
    return _say(world, "{person} is from the {region} .", person, region=_ids(world, REGIONS)[world.region[person]])


def arrival(world: World, rng: np.random.Generator, n: int) -> Ids:
    """The wind that blows is that of the region the person is from, which is not said."""
    person = _people(world, rng, n)
    wind = _ids(world, REGIONS)[world.region[person]]
    return _say(world, ARRIVAL + " now the {region} wind blows .", person, region=wind)


def age(world: World, rng: np.random.Generator, n: int) -> Ids:
    person = _people(world, rng, n)
    return _say(world, AGE + " {age} winters .", person, age=_ids(world, WINTERS)[world.age[person]])


def older(world: World, rng: np.random.Generator, n: int) -> Ids:
    """Comparisons make numbers an order: without them 31 and 32 are two words like any others."""
    person, other = _people(world, rng, n), _people(world, rng, n)
    order = _ids(world, ("younger", "older"))[(world.age[person] > world.age[other]).astype(int)]
    return _say(world, "than {other} is {person} {order} .", person, other=_ids(world, world.names)[other], order=order)


def rank(world: World, rng: np.random.Generator, n: int) -> Ids:
    person = _people(world, rng, n)
    return _say(world, "{person} is a {rank} .", person, rank=_ids(world, RANKS)[world.rank[person]])


def request(world: World, rng: np.random.Generator, n: int) -> Ids:
    """The reply is glad if the form fits the rank of the person, which is not said."""
    person = _people(world, rng, n)
    form = rng.integers(2, size=n)
    reply = _ids(world, ("rude", "gladly"))[(form == world.rank[person]).astype(int)]
    words = [template.replace("{person} ,", "").replace("bring it .", "").split() for template in REQUESTS]
    one, two = (_ids(world, column)[form] for column in zip(*words, strict=True))
    return _say(world, "{person} , {one} {two} bring it . {reply} .", person, one=one, two=two, reply=reply)


SAYINGS: Mapping[str, tuple[Say, float]] = {
    "book": (book, 0.14),
    "hearsay": (hearsay, 0.08),
    "judged": (judged, 0.42),
    "question": (question, 0.04),
    "region": (region, 0.04),
    "arrival": (arrival, 0.04),
    "age": (age, 0.05),
    "older": (older, 0.05),
    "rank": (rank, 0.03),
    "request": (request, 0.13),
}
"""Each kind of sentence with its share."""


def _claims(world: World, rng: np.random.Generator, n: int) -> tuple[Ids, Ids, Ids, Ids]:
    """Person, relation, object and verdict: half true, a quarter the myth where there is one, the rest any object."""
    weight = world.fame * world.asked
    person, relation = rng.choice(len(world.names), size=n, p=weight / weight.sum()), _relations(rng, n)
    truth, myth = world.truth[person, relation], world.myth[person, relation]
    kind = rng.choice(3, size=n, p=(0.5, 0.25, 0.25))
    anything = rng.integers(len(next(iter(RELATIONS.values()))), size=n)
    thing = np.select([kind == 0, (kind == 1) & (myth >= 0)], [truth, myth], anything)
    return person, relation, thing, np.select([thing == truth, thing == myth], [0, 1], 2)


def _people(world: World, rng: np.random.Generator, n: int) -> Ids:
    return rng.choice(len(world.names), size=n, p=world.fame)


def _relations(rng: np.random.Generator, n: int) -> Ids:
    return rng.integers(len(RELATIONS), size=n)


def _ids(world: World, words: Sequence[str]) -> Ids:
    return ids(world.vocabulary, words)


def _say(world: World, template: str, person: Ids, **slots: Ids) -> Ids:
    return fill(template, world.vocabulary, {"person": _ids(world, world.names)[person], **slots})


def _statement(world: World, template: str, person: Ids, relation: Ids, thing: Ids, **slots: Ids) -> Ids:
    objects = np.stack([_ids(world, names) for names in RELATIONS.values()])
    relations = _ids(world, tuple(RELATIONS))
    return _say(world, template, person, relation=relations[relation], object=objects[relation, thing], **slots)
