"""A language of the world `grammar`: a grammar with words, token features and an oracle."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, TargetKind
from ontogeny.errors import BadInput
from ontogeny.worlds.grammar.parser import recognise
from ontogeny.worlds.grammar.rules import Floats, Grammar, Ints
from ontogeny.worlds.grammar.sampling import Strings

UNGRAMMATICAL = "ungrammatical"
_GRAMMATICAL = "grammatical"


@dataclass(frozen=True)
class Feature:
    """A label of every token that depends only on the text up to it; computed for arrays of strings."""

    name: str
    question: str
    kind: TargetKind
    read: Callable[[Strings], Floats]
    """String × token: a number, the index of a class, or 0 and 1; NaN for no value."""
    classes: tuple[str, ...] = ()


def keep_strings(rng: np.random.Generator, strings: Strings) -> Strings:
    return strings


def no_facts(strings: Strings) -> tuple[Answer, ...]:
    return ()


@dataclass(frozen=True)
class Language:
    grammar: Grammar
    words: tuple[str, ...]
    """Words by their number in strings after `finish`; before it, numbers are those of the grammar's terminals."""
    features: tuple[Feature, ...]
    judge: Callable[[Ints, Ints], Ints]
    """Words and lengths of many strings -> the index of each verdict."""
    verdicts: tuple[str, ...] = (UNGRAMMATICAL, _GRAMMATICAL)
    """The first is for strings outside the grammar, the last for sampled strings."""
    finish: Callable[[np.random.Generator, Strings], Strings] = keep_strings
    """Adds what a context-free grammar cannot: words that depend on each other, an answer at the end."""
    added_words: int = 0
    """Number of words that `finish` adds."""
    facts: Callable[[Strings], tuple[Answer, ...]] = no_facts
    """Questions to a trained model, made from strings."""
    fact_concept: str | None = None
    """Name of the feature whose concept has these answers."""
    extra_concepts: tuple[Concept, ...] = ()
    """Concepts beside those of the features."""


def plain_language(grammar: Grammar) -> Language:
    """A language of any grammar: features of each word's derivation, and a chart parser as oracle.

    The features of an ambiguous string are those of the derivation that was drawn. In a left-recursive grammar they can depend on later
    words.
    """
    features = derivation_features(grammar, {name: name for name in grammar.nonterminals})
    return Language(grammar, grammar.terminals, features, partial(chart_verdicts, grammar))


def chart_verdicts(grammar: Grammar, words: Ints, lengths: Ints) -> Ints:
    return recognise(grammar, words, lengths).astype(int)


def derivation_features(grammar: Grammar, parts: Mapping[str, str]) -> tuple[Feature, ...]:
    """Part of speech (`parts` maps nonterminals to names), depth and place."""
    lexical = {rule.left for rule in grammar.rules if any(symbol in grammar.terminals for symbol in rule.right)}
    part = {symbol: parts[symbol] for symbol in grammar.nonterminals if symbol in parts and symbol in lexical}
    classes = tuple(dict.fromkeys(part.values()))
    # The last entry is for the role -1, after the end of a string.
    number = np.array([*(classes.index(part[s]) if s in part else np.nan for s in grammar.nonterminals), np.nan])
    return (
        Feature("part_of_speech", "Which part of speech is the word?", "classes", lambda s: number[s.role], classes),
        Feature("depth", "How deep in its phrases does the word stand?", "number", lambda s: mask_padding(s, s.depth)),
        Feature(
            "place", "In which place of its phrase does the word stand?", "number", lambda s: mask_padding(s, s.place)
        ),
    )


def mask_padding(strings: Strings, values: Ints) -> Floats:
    """Values as floats, NaN after the end of a string."""
    return np.where(strings.inside, values.astype(float), np.nan)


def word_weights(rng: np.random.Generator, words: tuple[str, ...], concentration: float) -> dict[str, float]:
    """Weights of the words of one part of speech: a Dirichlet draw, even up to 1 / √concentration."""
    if concentration <= 0:
        raise BadInput(f"`concentration` must be positive, got {concentration}: 1e5 is nearly even.")
    return dict(zip(words, rng.dirichlet(np.full(len(words), concentration)).tolist(), strict=True))


def render_words(words: tuple[str, ...], numbers: Ints) -> str:
    return " ".join(words[number] for number in numbers)
