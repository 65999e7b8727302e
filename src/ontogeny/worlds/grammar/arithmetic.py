"""Expressions: prefix arithmetic modulo ten; how many operands are owed is in the text, its value must be computed (arXiv:2410.11767)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.worlds.grammar.language import GRAMMATICAL, UNGRAMMATICAL, Feature, Language, render_words, word_weights
from ontogeny.worlds.grammar.rules import Floats, Grammar, Ints, make_grammar
from ontogeny.worlds.grammar.sampling import NO_SYMBOL, Strings

_DIGITS = tuple("0123456789")
_OPERATORS: Mapping[int, tuple[str, ...]] = {
    1: ("next", "minus", "twice"),
    2: ("plus", "times", "less"),
    3: ("sum", "mid", "pick"),
}
"""Operators by the number of their operands."""
_ARITIES = ("digit", "unary", "binary", "ternary")
_EQUALS = "="


@dataclass(frozen=True)
class Expressions:
    operators: int = 3
    """Of each arity, 1 to 3."""
    grow: float = 0.4
    """Share of expressions that are an operator and its operands; the rest are digits."""
    arities: tuple[float, float, float] = (0.33, 0.33, 0.34)
    """Shares of operators with one, two and three operands."""
    answer: bool = True
    """Whether `= value` follows."""
    concentration: float = 1e5
    """Of the Dirichlet draws of the words' weights."""


def arithmetic_language(config: Expressions, rng: np.random.Generator) -> Language:
    """Raises:
    BadInput: operators that there are not, or expressions that grow for ever.
    """
    if not 1 <= config.operators <= 3:
        raise BadInput(f"{config.operators} operators of each arity are not there. Take 1 to 3.")
    if not (0 < config.grow < 1 and min(config.arities) > 0):
        raise BadInput(f"grow {config.grow} and arities {config.arities} make no expressions. Take shares above 0.")
    made = _grammar(config, rng)
    words = (*made.terminals, _EQUALS)
    arity, digit = _arities(words), np.array([int(w) if w in _DIGITS else NO_SYMBOL for w in words])
    features: tuple[Feature, ...] = (
        Feature("owed", "How many operands are owed?", "number", lambda s: _operands_owed(arity, s)),
        Feature(
            "depth", "In how many operators does the word stand?", "number", lambda s: _mask_answer(s, s.depth - 2)
        ),
        Feature("arity", "How many operands does the word take?", "classes", lambda s: _arity(arity, s), _ARITIES),
    )
    if config.answer:
        features += (
            Feature("value", "What is the value of the expression?", "classes", lambda s: _value(words, s), _DIGITS),
        )
    return Language(
        made,
        words,
        features,
        judge=lambda given, lengths: _expression_verdicts(words, arity, digit, config.answer, given, lengths),
        verdicts=(UNGRAMMATICAL, "wrong", "right") if config.answer else (UNGRAMMATICAL, GRAMMATICAL),
        finish=lambda rng, strings: _append_answers(words, strings) if config.answer else strings,
        longer=2 * config.answer,
        facts=lambda strings: _facts(words, strings) if config.answer else (),
        asked_by="value",
    )


def _grammar(config: Expressions, rng: np.random.Generator) -> Grammar:
    arities = np.array(config.arities) * config.grow / sum(config.arities)
    rules = {"E": {"digit": 1 - config.grow}}
    lexical = {"digit": word_weights(rng, _DIGITS, config.concentration)}
    for (arity, names), weight in zip(_OPERATORS.items(), arities, strict=True):
        rules["E"][" ".join((_ARITIES[arity], *["E"] * arity))] = float(weight)
        lexical[_ARITIES[arity]] = word_weights(rng, names[: config.operators], config.concentration)
    return make_grammar("E", rules | lexical)


def evaluate_expressions(words: tuple[str, ...], given: Ints, lengths: Ints) -> Ints:
    """Values of whole expressions: from the last word to the first, an operator takes its operands from a stack."""
    count, longest = given.shape
    rows, stack, level = np.arange(count), np.zeros((count, longest + 3), dtype=int), np.zeros(count, dtype=int)
    digit = np.array([int(w) if w in _DIGITS else NO_SYMBOL for w in words])
    arity = _arities(words)
    for token in reversed(range(longest)):
        word, live = given[:, token], (token < lengths) & (given[:, token] >= 0)
        first, second, third = (stack[rows, np.maximum(level - i, 0)] for i in (1, 2, 3))
        found = digit[word]
        for name in {name for names in _OPERATORS.values() for name in names} & set(words):
            found = np.where(word == words.index(name), _apply(name, first, second, third), found)
        level = np.maximum(level + np.where(live, 1 - arity[word], 0), 0)
        at = np.maximum(level - 1, 0)
        stack[rows[live], at[live]] = found[live]
    return stack[:, 0]


def _apply(name: str, a: Ints, b: Ints, c: Ints) -> Ints:
    match name:
        case "next":
            return (a + 1) % 10
        case "minus":
            return -a % 10
        case "twice":
            return 2 * a % 10
        case "plus":
            return (a + b) % 10
        case "times":
            return a * b % 10
        case "less":
            return (a - b) % 10
        case "sum":
            return (a + b + c) % 10
        case "mid":
            return np.sort(np.stack([a, b, c]), axis=0)[1]
        case _:  # pick: the second if the first is even, else the third
            return np.where(a % 2 == 0, b, c)


def _arities(words: tuple[str, ...]) -> Ints:
    """Operands of each word; of a word that is no part of an expression NOTHING."""
    known = {name: arity for arity, names in _OPERATORS.items() for name in names} | dict.fromkeys(_DIGITS, 0)
    return np.array([known.get(word, NO_SYMBOL) for word in words])


def _whole(arity: Ints, given: Ints, lengths: Ints) -> NDArray[np.bool_]:
    """Whether the first so many words are one expression: owed falls to 0 with the last, not before."""
    inside = np.arange(given.shape[1]) < lengths[:, None]
    known = (given >= 0) & (arity[given] >= 0)
    owed = 1 + np.cumsum(np.where(inside, arity[given] - 1, 0), axis=1)
    last = np.arange(given.shape[1]) == lengths[:, None] - 1
    return (lengths > 0) & (known | ~inside).all(1) & (np.where(inside, (owed == 0) == last, True)).all(1)


def _expression_verdicts(
    words: tuple[str, ...], arity: Ints, digit: Ints, answer: bool, given: Ints, lengths: Ints
) -> Ints:
    if not answer:
        return _whole(arity, given, lengths).astype(int)
    bare, rows = np.maximum(lengths - 2, 0), np.arange(len(given))
    result, equals = (given[rows, np.maximum(lengths - back, 0)] for back in (1, 2))
    formed = _whole(arity, given, bare) & (equals == words.index(_EQUALS)) & (result >= 0) & (digit[result] >= 0)
    right = formed & (evaluate_expressions(words, given, np.where(formed, bare, 0)) == digit[result])
    return formed.astype(int) + right


def _append_answers(words: tuple[str, ...], strings: Strings) -> Strings:
    """With ` = value` behind each."""
    longer, depth, place, role = (
        np.pad(table, ((0, 0), (0, 2)), constant_values=NO_SYMBOL)
        for table in (strings.words, strings.depth, strings.place, strings.role)
    )
    rows = np.arange(len(strings))
    number = np.array([words.index(digit) for digit in _DIGITS])
    longer[rows, strings.lengths] = words.index(_EQUALS)
    longer[rows, strings.lengths + 1] = number[evaluate_expressions(words, strings.words, strings.lengths)]
    return replace(strings, words=longer, depth=depth, place=place, role=role, lengths=strings.lengths + 2)


def _mask_answer(strings: Strings, values: Ints) -> Floats:
    """For the words of the expression, not for its answer."""
    inner = (strings.role >= 0) & strings.inside
    return np.where(inner, values.astype(float), np.nan)


def _operands_owed(arity: Ints, strings: Strings) -> Floats:
    return _mask_answer(strings, 1 + np.cumsum(np.where(strings.role >= 0, arity[strings.words] - 1, 0), axis=1))


def _arity(arity: Ints, strings: Strings) -> Floats:
    return _mask_answer(strings, arity[strings.words])


def _value(words: tuple[str, ...], strings: Strings) -> Floats:
    """At the sign of equality, before the answer."""
    value = evaluate_expressions(words, strings.words, strings.lengths - 2)
    return np.where(strings.words == words.index(_EQUALS), value[:, None].astype(float), np.nan)


def _facts(words: tuple[str, ...], strings: Strings) -> tuple[Answer, ...]:
    answers = {}
    for row, (length, value) in enumerate(
        zip(strings.lengths, evaluate_expressions(words, strings.words, strings.lengths - 2), strict=True)
    ):
        prompt = render_words(words, strings.words[row, : length - 1])
        answers[prompt] = Answer(prompt, f" {value}", f" {(value + 1 + row % 9) % 10}", prompt)
    return tuple(answers.values())
