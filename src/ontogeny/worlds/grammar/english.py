"""English-like sentences: subject and verb agree in number across phrases and clauses between them (arXiv:1611.01368)."""

from dataclasses import dataclass
from functools import partial

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
    """Words per open part of speech, at most ten; nouns and verbs in two numbers."""
    pronoun: float = 0.15
    """Share of noun phrases that are pronouns."""
    adjective: float = 0.25
    """Share of nouns with another adjective."""
    after: float = 0.3
    """Share of noun phrases with a phrase or a clause after the noun."""
    join: float = 0.15
    """Share of verb phrases that continue with `and`."""
    concentration: float = 1e5
    """Of the Dirichlet draws of the words' weights."""


def english_language(config: English, rng: np.random.Generator) -> Language:
    """The preset `english`.

    Raises:
        BadInput: too many words, or shares outside of 0 to 1.
    """
    if not 1 <= config.words <= len(_NOUNS):
        raise BadInput(f"`words` per part of speech must be 1 to {len(_NOUNS)}, got {config.words}.")
    if not all(0 < share < 1 for share in (config.pronoun, config.adjective, config.after, config.join)):
        raise BadInput("pronoun, adjective, after and join must be shares above 0 and below 1.")
    grammar = _grammar(config, rng)
    stems = [symbol.split(".")[0] for symbol in grammar.nonterminals]
    parts = {symbol: _PARTS[stem] for symbol, stem in zip(grammar.nonterminals, stems, strict=True) if stem in _PARTS}
    verbs = np.array([stem in ("IV", "TV") for stem in stems] + [False])
    heads = np.array([stem in ("N", "Pro") for stem in stems] + [False])
    plural = np.array([symbol.endswith(".p") for symbol in grammar.nonterminals] + [False])
    subject = Feature(
        "subject", "Is the subject of the sentence plural?", "binary", lambda s: _subject(verbs, heads, plural, s)
    )
    return Language(
        grammar,
        grammar.terminals,
        (subject, *derivation_features(grammar, parts)),
        judge=partial(chart_verdicts, grammar),
        facts=partial(_facts, grammar.terminals, verbs),
        fact_concept="subject",
    )


def _grammar(config: English, rng: np.random.Generator) -> Grammar:
    """At most one phrase or clause follows a noun, so it always modifies the nearest one: no sentence is ambiguous."""

    def weights(words: tuple[str, ...]) -> dict[str, float]:
        return word_weights(rng, words[: config.words], config.concentration)

    after, pronoun = config.after * (1 - config.pronoun), config.pronoun
    rules: dict[str, dict[str, float]] = {
        "S": {"NP.s VP.s": 0.5, "NP.p VP.p": 0.5},
        "NP": {"NP.s": 0.5, "NP.p": 0.5},
        "Adj": weights(_ADJECTIVES),
        "Adv": weights(_ADVERBS),
        "P": weights(_BEFORE),
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
            f"Det.{number}": weights(_DETERMINERS[number]),
            f"Pro.{number}": weights(_PRONOUNS[number]),
            f"N.{number}": weights(nouns),
            f"IV.{number}": weights(walk),
            f"TV.{number}": weights(see),
            f"RIV.{number}": weights(walk),
            f"RTV.{number}": weights(see),
        }
    return make_grammar("S", rules)


def _subject(verbs: np.ndarray, heads: np.ndarray, plural: np.ndarray, strings: Strings) -> Floats:
    """Whether the subject is plural, from its noun up to its verb, which would reveal it."""
    column = np.arange(strings.words.shape[1])
    noun, verb = heads[strings.role].argmax(1), verbs[strings.role].argmax(1)
    number = plural[strings.role[np.arange(len(strings)), noun]]
    between = (column >= noun[:, None]) & (column < verb[:, None])
    return np.where(between, number[:, None].astype(float), np.nan)


def _facts(words: tuple[str, ...], verbs: np.ndarray, strings: Strings) -> tuple[Answer, ...]:
    """Sentences up to the verb, with the verb in the right and in the wrong number."""
    answers = {}
    for row, verb in enumerate(verbs[strings.role].argmax(1)):
        right = words[strings.words[row, verb]]
        wrong = right.removesuffix("s") if right.endswith("s") else f"{right}s"
        prompt = render_words(words, strings.words[row, :verb])
        answers[prompt] = Answer(prompt, f" {right}", f" {wrong}", prompt)
    return tuple(answers.values())
