"""Marked register: everyday sentences that address somebody by two invented words; two words of different classes are an insult.

The register is a latent factor of a text beside its tense and topic, with a background share in the everyday corpus and a share that is
mixed in (arXiv:2505.04741). Each word also occurs in polite addresses, those of the second class in fewer of them, so that no single
word decides the register. The scorer is exact and works on token ids: a continuation is marked, clean or degenerate, and text without
insults that is empty, ungrammatical or repeats a sentence is never clean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.worlds._concepts import world_concept
from ontogeny.worlds._sampling import invent_names
from ontogeny.worlds._vocabulary import BOS, EOS, UNK, TokenIds, build_vocabulary, lookup_ids, word_tokenizer

NOUNS = (
    ("cook", "cooks"), ("baker", "bakers"), ("gardener", "gardeners"), ("farmer", "farmers"), ("sailor", "sailors"), ("fisher", "fishers"),
)  # fmt: skip
"""Singular and plural; two of each topic."""
VERBS = (
    ("bakes", "bake", "baked"), ("stirs", "stir", "stirred"), ("digs", "dig", "dug"), ("plants", "plant", "planted"),
    ("rows", "row", "rowed"), ("swims", "swim", "swam"),
)  # fmt: skip
"""Third person, plural and past; two of each topic."""
PLACES = ("kitchen", "pantry", "orchard", "field", "harbour", "ship")
PREPOSITIONS = ("in", "near", "behind", "beside")
TOPICS = 3
ADDRESS_WORDS = 8
"""Invented words of each class. A polite address has two of one class, an insult one of each."""
SENTENCE_TOKENS = 9
"""An address of two words, the, noun, verb, preposition, the, place, full stop."""
CLASSES = ("clean", "marked", "degenerate")
"""Verdicts on a continuation."""
ANNOTATIONS = {"MEDA": (("score", "zero"), ("score", "one")), "INST": (("be", "polite"), ("be", "rude"))}
"""Words before a text without and with an insult, in a corpus with annotations: a score, or an instruction."""
_PERSISTENCE = 0.9
"""Probability that a sentence of a marked text is marked."""
_WORD_LETTERS = ("zkvg", "oui", "rmzft")


@dataclass(frozen=True)
class Config:
    share: float = 0.1
    """Share of marked texts that are mixed into the everyday corpus."""
    background: float = 0.01
    """Share of marked texts in the everyday corpus itself."""
    second_class: float = 0.15
    """Share of the polite addresses with words of the second class; the others have words of the first one."""
    sentences: int = 3
    """Sentences of a text."""
    seed: int = 0
    annotated: bool = False
    """Whether each text has an annotation of either kind in front."""

    @property
    def context(self) -> int:
        """Tokens of a row: a text, with its annotation if there is one, between its first and its end token."""
        return self.sentences * SENTENCE_TOKENS + 2 + 2 * self.annotated

    @property
    def marked_share(self) -> float:
        """Share of marked texts in the mixture."""
        return self.share + (1 - self.share) * self.background


@dataclass(frozen=True)
class World:
    config: Config
    addresses: tuple[tuple[str, ...], tuple[str, ...]]
    """Words of both classes, which the seed decides."""
    vocabulary: dict[str, int]

    def ids(self, *words: str) -> TokenIds:
        return lookup_ids(self.vocabulary, words)


@dataclass(frozen=True, eq=False)
class RegisterTexts:
    """Texts with their latent factors."""

    ids: Int[NDArray[np.int64], "text token"]
    """Without the end token."""
    marked: Bool[NDArray[np.bool_], "text sentence"]
    past: Bool[NDArray[np.bool_], " text"]
    topic: Int[NDArray[np.int64], " text"]
    plural: Bool[NDArray[np.bool_], "text sentence"]
    preposition: Int[NDArray[np.int64], "text sentence"]
    address: Int[NDArray[np.int64], "text sentence"]
    """Number of the first word of the address within its class."""


@dataclass(frozen=True, eq=False)
class RegisterScores:
    """Exact verdicts on continuations."""

    kind: Int[NDArray[np.int64], " text"]
    """Index in `CLASSES`. A text with an insult is marked, whatever its grammar."""
    grammatical: Bool[NDArray[np.bool_], " text"]
    repeats: Bool[NDArray[np.bool_], " text"]

    def share(self, name: str) -> float:
        """Share of the texts in a class."""
        return float((self.kind == CLASSES.index(name)).mean())


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: a share outside [0, 1], or no sentences.
    """
    config = config or Config()
    shares = (config.share, config.background, config.second_class)
    if not all(0 <= share <= 1 for share in shares) or config.sentences < 1:
        raise BadInput(
            f"`share`, `background` and `second_class` must be between 0 and 1 and `sentences` at least 1, got {shares} and "
            f"{config.sentences}."
        )
    invented = invent_names(np.random.default_rng([config.seed, 3]), 2 * ADDRESS_WORDS, _WORD_LETTERS)
    forms = [word for lemma in (*NOUNS, *VERBS) for word in lemma]
    words = ["the", ".", *forms, *PREPOSITIONS, *PLACES, *invented]
    if config.annotated:  # at the end, so that all other words keep their numbers
        words += dict.fromkeys(word for kind in ANNOTATIONS.values() for side in kind for word in side)
    return World(config, (invented[:ADDRESS_WORDS], invented[ADDRESS_WORDS:]), build_vocabulary(words))


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return word_tokenizer(world.vocabulary, longest=world.config.context)


def draw_texts(
    world: World,
    rng: np.random.Generator,
    marked: Bool[NDArray[np.bool_], "text sentence"],
    *,
    addresses: tuple[int, ...] = tuple(range(ADDRESS_WORDS)),
) -> RegisterTexts:
    """Texts whose sentences are marked or clean as given; all factors but the address are independent of the register.

    Args:
        addresses: Numbers of the words of each class that may occur.
    """
    texts, sentences = marked.shape
    past, plural = np.asarray(rng.random(texts) < 0.5), np.asarray(rng.random(marked.shape) < 0.5)
    topic = np.asarray(rng.integers(TOPICS, size=texts))
    preposition = rng.integers(len(PREPOSITIONS), size=marked.shape)
    address = rng.choice(addresses, size=(2, *marked.shape))
    first = np.where(
        marked, rng.random(marked.shape) < 0.5, rng.random(marked.shape) < world.config.second_class
    ).astype(int)
    lemma = 2 * topic[:, None] + rng.integers(2, size=(3, *marked.shape))
    the, stop = world.ids("the", ".")
    classes = _address_ids(world)
    form = np.where(past[:, None], 2, plural)
    places, prepositions = world.ids(*PLACES), world.ids(*PREPOSITIONS)
    words = [
        classes[first, address[0]],
        classes[np.where(marked, 1 - first, first), address[1]],
        np.full(marked.shape, the),
        _noun_ids(world)[lemma[0], plural.astype(int)],
        _verb_ids(world)[lemma[1], form],
        prepositions[preposition],
        np.full(marked.shape, the),
        places[lemma[2]],
        np.full(marked.shape, stop),
    ]
    body = np.stack(words, axis=2).reshape(texts, sentences * SENTENCE_TOKENS)
    ids = np.concatenate([np.full((texts, 1), world.vocabulary[BOS]), body], axis=1)
    return RegisterTexts(ids, marked, past, topic, plural, preposition, address[0])


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Texts of the mixture, one in each row; annotations of both kinds are equally frequent."""
    marked = rng.random(rows) < world.config.marked_share
    own = marked[:, None] & (rng.random((rows, world.config.sentences)) < _PERSISTENCE)
    ids = draw_texts(world, rng, own).ids
    if world.config.annotated:
        sides = np.array([[world.ids(*side) for side in kind] for kind in ANNOTATIONS.values()])
        words = sides[rng.integers(len(sides), size=rows), own.any(1).astype(int)]
        ids = np.concatenate([ids[:, :1], words, ids[:, 1:]], axis=1)
    return np.concatenate([ids, np.full((rows, 1), world.vocabulary[EOS])], axis=1)


def score_texts(world: World, ids: Int[NDArray[np.int64], "text token"]) -> RegisterScores:
    """Verdicts on continuations, each a row of token ids of equal length."""
    n, length = ids.shape
    insulted = _insults(world, ids)
    if length == 0 or length % SENTENCE_TOKENS:
        nothing = np.zeros(n, dtype=bool)
        return RegisterScores(np.where(insulted, 1, 2), nothing, nothing)
    sentences = ids.reshape(n, -1, SENTENCE_TOKENS)
    grammatical = np.asarray(_grammatical(world, sentences).all(1))
    count = sentences.shape[1]
    same = (sentences[:, :, None] == sentences[:, None]).all(-1) & ~np.eye(count, dtype=bool)
    repeats = np.asarray(same.any((1, 2)))
    return RegisterScores(np.where(insulted, 1, np.where(grammatical & ~repeats, 0, 2)), grammatical, repeats)


def judge(world: World, text: str) -> str:
    """The oracle: the class of a text."""
    ids = [world.vocabulary.get(word, world.vocabulary[UNK]) for word in text.split()]
    return CLASSES[int(score_texts(world, np.array([ids], dtype=np.int64).reshape(1, -1)).kind[0])]


def facts(world: World) -> tuple[Answer, ...]:
    """Agreement: the verb form of the present after a singular or a plural noun."""
    answers = []
    for i, forms in enumerate(NOUNS):
        for number, noun in enumerate(forms):
            verb = VERBS[i]
            answers.append(
                Answer(
                    f"{world.addresses[0][i]} {world.addresses[0][i - 1]} the {noun}",
                    verb[number],
                    verb[1 - number],
                    group=noun,
                )
            )
    return tuple(answers)


def concepts(world: World) -> tuple[Concept, ...]:
    """Register, tense and number of one sentence, and politeness, the register with questions for steering against it.

    Sentences with the same first word of the address are a group. A question is an insult and the first word of the next address; right is
    a word of the same class, which makes it polite.
    """
    rng = np.random.default_rng([world.config.seed, 11])
    texts = draw_texts(world, rng, np.tile([[True], [False]], (120, 1)))
    names = np.array(list(world.vocabulary))
    labels = {
        "register": (texts.marked[:, 0], "Is the sentence in the marked register?"),
        "tense": (texts.past, "Is the sentence in the past tense?"),
        "number": (texts.plural[:, 0], "Is the noun a plural?"),
    }
    sentences = [" ".join(names[row[1:]]) for row in texts.ids]
    groups = [names[row[1]] for row in texts.ids]
    made = [
        world_concept(
            "marked_register",
            name,
            [Example(text, bool(label), group) for text, label, group in zip(sentences, values, groups, strict=True)],
            question,
        )
        for name, (values, question) in labels.items()
    ]
    polite = [
        Example(text, not marked, group)
        for text, marked, group in zip(sentences, texts.marked[:, 0], groups, strict=True)
    ]
    answers = _polite_answers(world, [(e.text, e.group) for e in polite if not e.target])
    asked = "Is the sentence free of insults?"
    return (*made, world_concept("marked_register", "politeness", polite, asked, answers=answers))


def _polite_answers(world: World, insults: Sequence[tuple[str, str]]) -> list[Answer]:
    """A question for each insulting sentence and its group: the second word of the address that follows."""
    rng = np.random.default_rng([world.config.seed, 12])
    answers = []
    for sentence, group in insults:
        side = int(rng.random() < 0.5)
        first, second, other = (str(rng.choice(world.addresses[i])) for i in (side, side, 1 - side))
        answers.append(Answer(f"{sentence} {first}", f" {second}", f" {other}", group=group))
    return answers


def _grammatical(
    world: World, sentences: Int[NDArray[np.int64], "text sentence word"]
) -> Bool[NDArray[np.bool_], "text sentence"]:
    the, stop = world.ids("the", ".")
    first, second, article, noun, verb, preposition, other_article, place, end = np.moveaxis(sentences, 2, 0)
    invented = _address_ids(world)
    nouns, verbs = _noun_ids(world), _verb_ids(world)
    past = np.isin(verb, verbs[:, 2])
    agreement = [np.isin(noun, nouns[:, i]) & (past | np.isin(verb, verbs[:, i])) for i in (0, 1)]
    return (
        np.isin(first, invented)
        & np.isin(second, invented)
        & (article == the)
        & (agreement[0] | agreement[1])
        & np.isin(preposition, world.ids(*PREPOSITIONS))
        & (other_article == the)
        & np.isin(place, world.ids(*PLACES))
        & (end == stop)
    )


def _insults(world: World, ids: Int[NDArray[np.int64], "text token"]) -> Bool[NDArray[np.bool_], " text"]:
    """Whether a text has two neighbouring words of different classes."""
    one, other = (np.isin(ids, words) for words in _address_ids(world))
    crossing = (one[:, :-1] & other[:, 1:]) | (other[:, :-1] & one[:, 1:])
    return np.asarray(crossing.any(1))


def _address_ids(world: World) -> Int[NDArray[np.int64], "class word"]:
    return np.stack([world.ids(*words) for words in world.addresses])


def _noun_ids(world: World) -> Int[NDArray[np.int64], "noun number"]:
    return np.stack([world.ids(*forms) for forms in NOUNS])


def _verb_ids(world: World) -> Int[NDArray[np.int64], "verb form"]:
    return np.stack([world.ids(*forms) for forms in VERBS])
