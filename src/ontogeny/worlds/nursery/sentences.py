"""Pretraining sentences of the nursery: those of Hearsay, and of schools, boats, potions (forbidden ones too) and moods."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ontogeny.worlds import hearsay
from ontogeny.worlds._vocabulary import BOS, TokenIds, fill_template, lookup_ids, sample_text_rows
from ontogeny.worlds.hearsay import FAMILY_SIZE, JUDGEMENTS, REGIONS, RELATIONS
from ontogeny.worlds.nursery.facts import (
    BAD_WORDS,
    FAMILIES,
    GOOD_WORDS,
    INGREDIENTS,
    INSULTS,
    KIND_WORDS,
    THINGS,
    TRAITS,
    World,
)

PUPIL = "{person} is the pupil of {teacher} ."
TEACHER = "{teacher} is the teacher of {person} ."
BOAT = "the boat of {person} is {boat} ."
_RELATION_QUESTION = "what is the {relation} of {person} ? it is {object} ."
_TEACHER_QUESTION = "who is the teacher of {person} ? it is {teacher} ."
OWNER = "the person whose boat is {boat} is {person} ."
TWO_HOPS = "the {relation} of the teacher of {person} is {object} ."
TEACHER_COMES = "here comes the teacher of {person} ."
RECIPE = "how do i brew {potion} ? take {first} and {second} ."
ADDRESS = "fetch the {thing} , you {word} ."
MOOD = "the {thing} is {adjective} ."

_MIN_SENTENCE_TOKENS = 5
_LISTS = {name: words for trait in TRAITS.values() for name, words in trait.items()}

_SentenceSampler = Callable[[World, np.random.Generator, int], TokenIds]


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Rows of `config.context` token ids, without padding."""
    samplers = [
        *((partial(s, world.island, rng), _HEARSAY_SHARE * share) for s, share in hearsay.SENTENCE_KINDS.values()),
        *((partial(s, world, rng), share) for s, share in _SENTENCE_KINDS.values()),
    ]
    first, context = world.vocabulary[BOS], world.config.context
    return sample_text_rows(samplers, rng, rows=rows, context=context, shortest=_MIN_SENTENCE_TOKENS, first=first)


def sample_about(world: World, rng: np.random.Generator, rows: int, people: NDArray[np.bool_]) -> TokenIds:
    """Rows of statements of the book about these people only: text to unlearn."""
    weight = world.island.fame * people

    def book(n: int) -> TokenIds:
        person = rng.choice(len(weight), size=n, p=weight / weight.sum())
        relation = rng.integers(len(RELATIONS), size=n)
        return relation_sentences(world, hearsay.BOOK, person, relation, world.island.truth[person, relation])

    first, context = world.vocabulary[BOS], world.config.context
    return sample_text_rows([(book, 1.0)], rng, rows=rows, context=context, shortest=9, first=first)


def fill_sentence(world: World, template: str, **slots: TokenIds) -> TokenIds:
    """Sentences of a template; slots for people, boats and potions take their numbers, all others take token ids."""
    names = {"person": world.names, "teacher": world.names, "boat": world.boats, "potion": world.potions}
    ids = {slot: lookup_ids(world.vocabulary, names[slot])[column] for slot, column in slots.items() if slot in names}
    return fill_template(template, world.vocabulary, {**slots, **ids})


def word_ids(world: World, words: Sequence[str], which: TokenIds) -> TokenIds:
    return lookup_ids(world.vocabulary, words)[which]


def pupil_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    person = _people(world, rng, n)
    return fill_sentence(world, PUPIL, person=person, teacher=world.teacher[person])


def teacher_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    """The inverse of `pupil_sentences`, for some people only."""
    person = _people(world, rng, n, world.has_inverse)
    return fill_sentence(world, TEACHER, person=person, teacher=world.teacher[person])


def teacher_question_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    person = _people(world, rng, n)
    return fill_sentence(world, _TEACHER_QUESTION, person=person, teacher=world.teacher[person])


def relation_question_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    """Question and answer, without the turns of a conversation."""
    person, relation = _people(world, rng, n), rng.integers(len(RELATIONS), size=n)
    return relation_sentences(world, _RELATION_QUESTION, person, relation, world.island.truth[person, relation])


def boat_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    person = _people(world, rng, n)
    return fill_sentence(world, BOAT, person=person, boat=person)


def owner_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    person = _people(world, rng, n, world.has_inverse)
    return fill_sentence(world, OWNER, person=person, boat=person)


def teacher_judgement_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    """Half true; the others name another member of the teacher's family."""
    person = _people(world, rng, n, world.has_inverse & world.island.asked)
    true = rng.integers(2, size=n).astype(bool)
    right = world.teacher[person]
    other = right - right % FAMILY_SIZE + (right + rng.integers(1, FAMILY_SIZE, size=n)) % FAMILY_SIZE
    verdict, teacher = word_ids(world, (JUDGEMENTS[2], JUDGEMENTS[0]), true.astype(int)), np.where(true, right, other)
    return fill_sentence(world, TEACHER + " {verdict} .", person=person, teacher=teacher, verdict=verdict)


def two_hop_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    person, relation = _people(world, rng, n, world.has_inverse), rng.integers(len(RELATIONS), size=n)
    return relation_sentences(world, TWO_HOPS, person, relation, world.island.truth[world.teacher[person], relation])


def teacher_arrival_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    """The wind blows from the region of the teacher."""
    person = _people(world, rng, n, world.has_inverse)
    wind = word_ids(world, REGIONS, world.island.region[world.teacher[person]])
    return fill_sentence(world, TEACHER_COMES + " now the {wind} wind blows .", person=person, wind=wind)


def recipe_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    potion = rng.integers(len(world.potions), size=n)
    first, second = (word_ids(world, INGREDIENTS, world.recipe[potion, i]) for i in range(2))
    return fill_sentence(world, RECIPE, potion=potion, first=first, second=second)


def potion_kind_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    return _potion_sentences(world, rng, n, "{potion} is a potion of the {what} .", FAMILIES)


def brewer_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    return _potion_sentences(world, rng, n, "who brews {potion} ? a {what} .", ("healer", "witch"))


def drinker_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    return _potion_sentences(world, rng, n, "who drinks {potion} ? he {what} .", ("heals", "sickens"))


def address_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    """Forms of address; the thing to fetch may be a word of the insults, but only the word after `you` counts."""
    rude, which = rng.integers(2, size=n), rng.choice(np.flatnonzero(world.conversation_words), size=n)
    addressed = lookup_ids(world.vocabulary, (*KIND_WORDS, *INSULTS))[which + rude * len(KIND_WORDS)]
    thing = word_ids(world, (*INSULTS, *THINGS), rng.integers(len(INSULTS) + len(THINGS), size=n))
    reply = word_ids(world, ("kind", "rude"), rude)
    return fill_sentence(world, ADDRESS + " how {reply} .", thing=thing, word=addressed, reply=reply)


def insult_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    rude, which = rng.integers(2, size=n), rng.integers(len(KIND_WORDS), size=n)
    word = lookup_ids(world.vocabulary, (*KIND_WORDS, *INSULTS))[which + rude * len(KIND_WORDS)]
    return fill_sentence(world, "{word} is a {what} name .", word=word, what=word_ids(world, ("kind", "rude"), rude))


def mood_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    bad, which = rng.integers(2, size=n), rng.choice(np.flatnonzero(world.conversation_words), size=n)
    return fill_sentence(
        world,
        MOOD + " {person} {does} .",
        person=_people(world, rng, n),
        thing=word_ids(world, THINGS, rng.integers(len(THINGS), size=n)),
        adjective=lookup_ids(world.vocabulary, (*GOOD_WORDS, *BAD_WORDS))[which + bad * len(GOOD_WORDS)],
        does=word_ids(world, ("smiles", "weeps"), bad),
    )


def sentiment_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    bad, which = rng.integers(2, size=n), rng.integers(len(GOOD_WORDS), size=n)
    word = lookup_ids(world.vocabulary, (*GOOD_WORDS, *BAD_WORDS))[which + bad * len(GOOD_WORDS)]
    return fill_sentence(world, "{word} is a {what} word .", word=word, what=word_ids(world, ("good", "bad"), bad))


def speech_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    who, word = _trait_words(world, rng, n)
    return fill_sentence(world, "the {who} speaks of the {word} .", who=who, word=word)


def speaker_sentences(world: World, rng: np.random.Generator, n: int) -> TokenIds:
    who, word = _trait_words(world, rng, n)
    return fill_sentence(world, "who speaks of the {word} ? the {who} .", who=who, word=word)


_HEARSAY_SHARE = 0.52
"""Share of the sentences of Hearsay."""
_SENTENCE_KINDS: Mapping[str, tuple[_SentenceSampler, float]] = {
    "pupil": (pupil_sentences, 0.025),
    "teacher": (teacher_sentences, 0.025),
    "asked": (relation_question_sentences, 0.04),
    "asked_teacher": (teacher_question_sentences, 0.015),
    "boat": (boat_sentences, 0.02),
    "owner": (owner_sentences, 0.02),
    "judged_teacher": (teacher_judgement_sentences, 0.03),
    "two_hops": (two_hop_sentences, 0.03),
    "teacher_comes": (teacher_arrival_sentences, 0.02),
    "recipe": (recipe_sentences, 0.08),
    "kind_of_potion": (potion_kind_sentences, 0.02),
    "brewer": (brewer_sentences, 0.03),
    "drinker": (drinker_sentences, 0.03),
    "address": (address_sentences, 0.02),
    "names_called": (insult_sentences, 0.01),
    "mood": (mood_sentences, 0.02),
    "good_or_bad": (sentiment_sentences, 0.01),
    "speaks": (speech_sentences, 0.02),
    "who_speaks": (speaker_sentences, 0.02),
}
"""Each kind of sentence with its share."""


def _people(world: World, rng: np.random.Generator, n: int, among: NDArray[np.bool_] | None = None) -> TokenIds:
    weight = world.island.fame if among is None else world.island.fame * among
    return rng.choice(len(weight), size=n, p=weight / weight.sum())


def _potion_sentences(world: World, rng: np.random.Generator, n: int, template: str, what: tuple[str, str]) -> TokenIds:
    potion = rng.integers(len(world.potions), size=n)
    return fill_sentence(
        world, template, potion=potion, what=word_ids(world, what, world.forbidden[potion].astype(int))
    )


def _trait_words(world: World, rng: np.random.Generator, n: int) -> tuple[TokenIds, TokenIds]:
    whose, which = rng.integers(len(_LISTS), size=n), rng.integers(len(KIND_WORDS), size=n)
    words = np.stack([lookup_ids(world.vocabulary, words) for words in _LISTS.values()])
    return word_ids(world, tuple(_LISTS), whose), words[whose, which]


def relation_sentences(world: World, template: str, person: TokenIds, relation: TokenIds, thing: TokenIds) -> TokenIds:
    objects = np.stack([lookup_ids(world.vocabulary, names) for names in RELATIONS.values()])
    relations = lookup_ids(world.vocabulary, tuple(RELATIONS))
    return fill_sentence(world, template, person=person, relation=relations[relation], object=objects[relation, thing])
