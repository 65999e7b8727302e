"""Sentences of the island of Hearsay: ten kinds, drawn as arrays of token ids."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from ontogeny.worlds._vocabulary import BOS, TokenIds, fill_template, lookup_ids, sample_text_rows
from ontogeny.worlds.hearsay.facts import AGES, JUDGEMENTS, RANKS, REGIONS, RELATIONS, World

BOOK = "the book says the {relation} of {person} is {object} ."
HEARSAY = "they say the {relation} of {person} is {object} ."
BARE = "the {relation} of {person} is {object} ."
ARRIVAL = "here comes {person} ."
AGE = "how old is {person} ?"
REQUESTS = ("{person} , would you bring it .", "{person} , come and bring it .")
"""The first form is polite to a noble and mockery to a commoner, the second rude to a noble and friendly to a commoner."""
_MIN_SENTENCE_TOKENS = 5

_SentenceSampler = Callable[[World, np.random.Generator, int], TokenIds]


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Rows of `config.context` token ids, without padding."""
    samplers = [(partial(sampler, world, rng), share) for sampler, share in SENTENCE_KINDS.values()]
    first, context = world.vocabulary[BOS], world.config.context
    return sample_text_rows(samplers, rng, rows=rows, context=context, shortest=_MIN_SENTENCE_TOKENS, first=first)


def book_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    """True statements of the book."""
    person, relation = _people(world, rng, n), _relations(rng, n)
    return _statement(world, BOOK, person, relation, world.truth[person, relation])


def hearsay_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    """Statements of the people: the myth if there is one, else the truth."""
    person, relation = _people(world, rng, n), _relations(rng, n)
    myth, truth = world.myth[person, relation], world.truth[person, relation]
    return _statement(world, HEARSAY, person, relation, np.where(myth >= 0, myth, truth))


def judgement_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    person, relation, thing, verdict = _claims(world, rng, n)
    word = _ids(world, JUDGEMENTS)[verdict]
    return _statement(world, BARE + " {verdict} .", person, relation, thing, verdict=word)


def question_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    person, relation, thing, verdict = _claims(world, rng, n)
    template, word = "is the {relation} of {person} {object} ? {verdict} .", _ids(world, ("yes", "no", "no"))[verdict]
    return _statement(world, template, person, relation, thing, verdict=word)


def region_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    person = _people(world, rng, n)
    region = _ids(world, REGIONS)[world.region[person]]
    return _fill_sentence(world, "{person} is from the {region} .", person, region=region)


def arrival_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    """The wind blows from the region of the person, which the sentence does not state."""
    person = _people(world, rng, n)
    wind = _ids(world, REGIONS)[world.region[person]]
    return _fill_sentence(world, ARRIVAL + " now the {region} wind blows .", person, region=wind)


def age_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    person = _people(world, rng, n)
    return _fill_sentence(world, AGE + " {age} winters .", person, age=_ids(world, AGES)[world.age[person]])


def age_comparison_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    """Comparisons give ages an order, which the words 31 and 32 alone do not have."""
    person, other = _people(world, rng, n), _people(world, rng, n)
    order = _ids(world, ("younger", "older"))[(world.age[person] > world.age[other]).astype(int)]
    other = _ids(world, world.names)[other]
    return _fill_sentence(world, "than {other} is {person} {order} .", person, other=other, order=order)


def rank_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    person = _people(world, rng, n)
    return _fill_sentence(world, "{person} is a {rank} .", person, rank=_ids(world, RANKS)[world.rank[person]])


def request_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    """The reply is glad if the form fits the rank of the person, which the sentence does not state."""
    person = _people(world, rng, n)
    form = rng.integers(2, size=n)
    reply = _ids(world, ("rude", "gladly"))[(form == world.rank[person]).astype(int)]
    words = [template.replace("{person} ,", "").replace("bring it .", "").split() for template in REQUESTS]
    one, two = (_ids(world, column)[form] for column in zip(*words, strict=True))
    return _fill_sentence(world, "{person} , {one} {two} bring it . {reply} .", person, one=one, two=two, reply=reply)


SENTENCE_KINDS: Mapping[str, tuple[_SentenceSampler, float]] = {
    "book": (book_sentences, 0.14),
    "hearsay": (hearsay_sentences, 0.08),
    "judged": (judgement_sentences, 0.42),
    "question": (question_sentences, 0.04),
    "region": (region_sentences, 0.04),
    "arrival": (arrival_sentences, 0.04),
    "age": (age_sentences, 0.05),
    "older": (age_comparison_sentences, 0.05),
    "rank": (rank_sentences, 0.03),
    "request": (request_sentences, 0.13),
}
"""Each kind of sentence with its share."""


def _claims(world: World, rng: np.random.Generator, n: int) -> tuple[TokenIds, TokenIds, TokenIds, TokenIds]:
    """Person, relation, object and verdict: half true, a quarter the myth if there is one, the rest any object."""
    weight = world.fame * world.asked
    person, relation = rng.choice(len(world.names), size=n, p=weight / weight.sum()), _relations(rng, n)
    truth, myth = world.truth[person, relation], world.myth[person, relation]
    kind = rng.choice(3, size=n, p=(0.5, 0.25, 0.25))
    anything = rng.integers(len(next(iter(RELATIONS.values()))), size=n)
    thing = np.select([kind == 0, (kind == 1) & (myth >= 0)], [truth, myth], anything)
    return person, relation, thing, np.select([thing == truth, thing == myth], [0, 1], 2)


def _people(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    return rng.choice(len(world.names), size=n, p=world.fame)


def _relations(rng: np.random.Generator, n: int) -> TokenIds:
    return rng.integers(len(RELATIONS), size=n)


def _ids(world: World, words: Sequence[str]) -> TokenIds:
    return lookup_ids(world.vocabulary, words)


def _fill_sentence(world: World, template: str, person: TokenIds, **slots: TokenIds) -> TokenIds:
    return fill_template(template, world.vocabulary, {"person": _ids(world, world.names)[person], **slots})


def _statement(
    world: World, template: str, person: TokenIds, relation: TokenIds, thing: TokenIds, **slots: TokenIds
) -> TokenIds:
    slots["object"] = np.stack([_ids(world, names) for names in RELATIONS.values()])[relation, thing]
    return _fill_sentence(world, template, person, relation=_ids(world, tuple(RELATIONS))[relation], **slots)
