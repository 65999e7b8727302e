"""A language for the world `grammar`: a grammar, the words it is written in, what is known of every token, and who judges a text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, TargetKind
from ontogeny.errors import BadInput
from ontogeny.worlds.grammar.parser import recognise
from ontogeny.worlds.grammar.rules import Floats, Grammar, Ints
from ontogeny.worlds.grammar.sampling import Strings

UNGRAMMATICAL = "ungrammatical"
GRAMMATICAL = "grammatical"


@dataclass(frozen=True)
class Feature:
    """What is known of a token, from the text up to it: a function of whole arrays of strings."""

    name: str
    question: str
    kind: TargetKind
    read: Callable[[Strings], Floats]
    """String × token: a number, the index of a class, or 0 and 1; NaN where the question has no answer."""
    classes: tuple[str, ...] = ()


def keep_strings(rng: np.random.Generator, strings: Strings) -> Strings:
    return strings


def no_facts(strings: Strings) -> tuple[Answer, ...]:
    return ()


@dataclass(frozen=True)
class Language:
    grammar: Grammar
    words: tuple[str, ...]
    """What strings are numbered by after `finish`; before it, numbers are those of the grammar's terminals."""
    features: tuple[Feature, ...]
    judge: Callable[[Ints, Ints], Ints]
    """Words and lengths of many strings -> the number of each one's verdict."""
    verdicts: tuple[str, ...] = (UNGRAMMATICAL, GRAMMATICAL)
    """The first is that of a string which the grammar does not make, the last that of what is sampled."""
    finish: Callable[[np.random.Generator, Strings], Strings] = keep_strings
    """What no context-free grammar does: words that depend on each other, an answer at the end."""
    longer: int = 0
    """Words that `finish` adds."""
    facts: Callable[[Strings], tuple[Answer, ...]] = no_facts
    """What a model of the language should know, asked in some strings of it."""
    asked_by: str | None = None
    """Name of the feature or concept to which these answers belong."""
    more: tuple[Concept, ...] = ()
    """Concepts beside those of the features."""


def plain_language(grammar: Grammar) -> Language:
    """Any grammar: what its derivation says of each word, and a chart as judge.

    Where a string has several derivations, features are those of the one it was drawn by; where a phrase is told by what follows it (left
    recursion), they can look ahead.
    """
    features = (*derivation_features(grammar, {name: name for name in grammar.nonterminals}),)
    return Language(
        grammar, grammar.terminals, features, lambda words, lengths: chart_verdicts(grammar, words, lengths)
    )


def chart_verdicts(grammar: Grammar, words: Ints, lengths: Ints) -> Ints:
    return recognise(grammar, words, lengths).astype(int)


def derivation_features(grammar: Grammar, parts: Mapping[str, str]) -> tuple[Feature, ...]:
    """Part of speech (nonterminals that `parts` names, under the name it gives), depth and place."""
    spoken = {rule.left for rule in grammar.rules if any(symbol in grammar.terminals for symbol in rule.right)}
    part = {symbol: parts[symbol] for symbol in grammar.nonterminals if symbol in parts and symbol in spoken}
    classes = tuple(dict.fromkeys(part.values()))
    # The last is for the role of no word, -1.
    number = np.array([*(classes.index(part[s]) if s in part else np.nan for s in grammar.nonterminals), np.nan])
    return (
        Feature("part_of_speech", "Which part of speech is the word?", "classes", lambda s: number[s.role], classes),
        Feature("depth", "How deep in its phrases does the word stand?", "number", lambda s: mask_padding(s, s.depth)),
        Feature(
            "place", "In which place of its phrase does the word stand?", "number", lambda s: mask_padding(s, s.place)
        ),
    )


def mask_padding(strings: Strings, values: Ints) -> Floats:
    """Numbers for tokens, NaN behind the end of a string."""
    return np.where(strings.inside, values.astype(float), np.nan)


def word_weights(rng: np.random.Generator, words: tuple[str, ...], concentration: float) -> dict[str, float]:
    """Weights of the words of one part of speech: a Dirichlet draw, even to 1 / √concentration."""
    if concentration <= 0:
        raise BadInput(f"a concentration of {concentration} draws no weights. Take a positive one; 1e5 is nearly even.")
    return dict(zip(words, rng.dirichlet(np.full(len(words), concentration)).tolist(), strict=True))


def render_words(words: tuple[str, ...], numbers: Ints) -> str:
    return " ".join(words[number] for number in numbers)
