"""English-like sentences: subject and verb agree in number across phrases and clauses that stand between them (arXiv:1611.01368)."""

from dataclasses import dataclass

import numpy as np

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.worlds.grammar.language import (
    Feature,
    Language,
    chart_verdicts,
    derivation_features,
    render_words,
    word_weights,
)
from ontogeny.worlds.grammar.rules import Floats, Grammar, make_grammar
from ontogeny.worlds.grammar.sampling import Strings

_NOUNS = ("dog", "cat", "bird", "horse", "girl", "king", "farmer", "sailor", "teacher", "doctor")
_WALK = ("run", "sleep", "sing", "wait", "laugh", "swim", "dream", "work", "smile", "rest")
_SEE = ("see", "like", "help", "follow", "know", "hear", "find", "meet", "visit", "trust")
_ADJECTIVES = ("old", "small", "red", "happy", "quiet", "tall", "brave", "young", "proud", "wise")
_ADVERBS = ("often", "slowly", "today", "here", "again", "gladly", "rarely", "well", "loudly", "alone")
_BEFORE = ("near", "behind", "beside")
_PRONOUNS = {"s": ("it", "she", "he"), "p": ("they", "we", "you")}
_DETERMINERS = {"s": ("the", "a", "this"), "p": ("the", "some", "these")}
_PARTS = {
    "Det": "determiner", "N": "noun", "Adj": "adjective", "Pro": "pronoun", "IV": "verb", "TV": "verb", "RIV": "verb",
    "RTV": "verb", "Adv": "adverb", "P": "preposition", "That": "relative", "And": "conjunction",
}  # fmt: skip


@dataclass(frozen=True)
class English:
    words: int = 8
    """Of each open part of speech, at most ten; nouns and verbs in two numbers."""
    pronoun: float = 0.15
    """Share of noun phrases that are a pronoun."""
    adjective: float = 0.25
    """Share of nouns with an adjective more."""
    after: float = 0.3
    """Share of noun phrases after whose noun a phrase or a clause follows."""
    join: float = 0.15
    """Share of verb phrases that go on with `and`."""
    concentration: float = 1e5
    """Of the Dirichlet draws of the words' weights."""


def english_language(config: English, rng: np.random.Generator) -> Language:
    """Raises:
    BadInput: more words than there are, or shares outside of 0 to 1.
    """
    if not 1 <= config.words <= len(_NOUNS):
        raise BadInput(f"{config.words} words of each part of speech are not there. Take 1 to {len(_NOUNS)}.")
    if not all(0 < share < 1 for share in (config.pronoun, config.adjective, config.after, config.join)):
        raise BadInput("pronoun, adjective, after and join are shares. Take numbers above 0 and below 1.")
    made = _grammar(config, rng)
    parts = {symbol: _PARTS[symbol.split(".")[0]] for symbol in made.nonterminals if symbol.split(".")[0] in _PARTS}
    verbs = np.array([symbol.split(".")[0] in ("IV", "TV") for symbol in made.nonterminals] + [False])
    heads = np.array([symbol.split(".")[0] in ("N", "Pro") for symbol in made.nonterminals] + [False])
    plural = np.array([symbol.endswith(".p") for symbol in made.nonterminals] + [False])
    subject = Feature(
        "subject", "Is the subject of the sentence plural?", "binary", lambda s: _subject(verbs, heads, plural, s)
    )
    return Language(
        made,
        made.terminals,
        (subject, *derivation_features(made, parts)),
        judge=lambda words, lengths: chart_verdicts(made, words, lengths),
        facts=lambda strings: _facts(made.terminals, verbs, strings),
        asked_by="subject",
    )


def _grammar(config: English, rng: np.random.Generator) -> Grammar:
    """One phrase or clause at most stands after a noun, so that it always belongs to the nearest: no sentence is ambiguous."""

    def spoken(words: tuple[str, ...]) -> dict[str, float]:
        return word_weights(rng, words[: config.words], config.concentration)

    after, pronoun = config.after * (1 - config.pronoun), config.pronoun
    rules: dict[str, dict[str, float]] = {
        "S": {"NP.s VP.s": 0.5, "NP.p VP.p": 0.5},
        "NP": {"NP.s": 0.5, "NP.p": 0.5},
        "Adj": spoken(_ADJECTIVES),
        "Adv": spoken(_ADVERBS),
        "P": spoken(_BEFORE),
        "That": {"that": 1.0},
        "And": {"and": 1.0},
    }
    for number in ("s", "p"):
        nouns = _NOUNS if number == "s" else tuple(f"{noun}s" for noun in _NOUNS)
        walk, see = ((tuple(f"{verb}s" for verb in verbs) if number == "s" else verbs) for verbs in (_WALK, _SEE))
        rules |= {
            f"NP.{number}": {
                f"Pro.{number}": pronoun,
                f"Det.{number} NB.{number}": 1 - pronoun - after,
                f"Det.{number} NB.{number} After.{number}": after,
            },
            f"NB.{number}": {f"N.{number}": 1 - config.adjective, f"Adj NB.{number}": config.adjective},
            f"After.{number}": {
                "P NP": 0.4,
                f"That R.{number}": 0.3,
                "That NP.s RTV.s": 0.15,
                "That NP.p RTV.p": 0.15,
            },
            f"R.{number}": {f"RIV.{number}": 0.5, f"RTV.{number} NP": 0.5},
            f"VP.{number}": {f"V.{number}": 1 - config.join, f"V.{number} And VP.{number}": config.join},
            f"V.{number}": {f"IV.{number}": 0.35, f"IV.{number} Adv": 0.2, f"TV.{number} NP": 0.45},
            f"Det.{number}": spoken(_DETERMINERS[number]),
            f"Pro.{number}": spoken(_PRONOUNS[number]),
            f"N.{number}": spoken(nouns),
            f"IV.{number}": spoken(walk),
            f"TV.{number}": spoken(see),
            f"RIV.{number}": spoken(walk),
            f"RTV.{number}": spoken(see),
        }
    return make_grammar("S", rules)


def _subject(verbs: np.ndarray, heads: np.ndarray, plural: np.ndarray, strings: Strings) -> Floats:
    """From the subject's noun up to its verb, which would give it away."""
    column = np.arange(strings.words.shape[1])
    noun, verb = heads[strings.role].argmax(1), verbs[strings.role].argmax(1)
    number = plural[strings.role[np.arange(len(strings)), noun]]
    between = (column >= noun[:, None]) & (column < verb[:, None])
    return np.where(between, number[:, None].astype(float), np.nan)


def _facts(words: tuple[str, ...], verbs: np.ndarray, strings: Strings) -> tuple[Answer, ...]:
    """The verb of the sentence in the number of its subject, and in the other."""
    answers = {}
    for row, verb in enumerate(verbs[strings.role].argmax(1)):
        right = words[strings.words[row, verb]]
        wrong = right.removesuffix("s") if right.endswith("s") else f"{right}s"
        prompt = render_words(words, strings.words[row, :verb])
        answers[prompt] = Answer(prompt, f" {right}", f" {wrong}", prompt)
    return tuple(answers.values())
