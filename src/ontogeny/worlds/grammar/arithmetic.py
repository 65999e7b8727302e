"""Expressions: prefix arithmetic modulo ten; the number of operands due is in the text, the value must be computed (arXiv:2410.11767)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.worlds.grammar.language import UNGRAMMATICAL, Feature, Language, render_words, word_weights
from ontogeny.worlds.grammar.rules import Floats, Grammar, Ints, make_grammar
from ontogeny.worlds.grammar.sampling import NO_SYMBOL, Strings

_DIGITS = tuple("0123456789")
_OPERATORS: Mapping[int, tuple[str, ...]] = {
    1: ("next", "minus", "twice"),
    2: ("plus", "times", "less"),
    3: ("sum", "mid", "pick"),
}
"""Operators by arity."""
_ARITIES = ("digit", "unary", "binary", "ternary")
_EQUALS = "="


@dataclass(frozen=True)
class Expressions:
    operators: int = 3
    """Operators per arity, 1 to 3."""
    grow: float = 0.4
    """Share of expressions with an operator; the others are digits."""
    arities: tuple[float, float, float] = (0.33, 0.33, 0.34)
    """Shares of operators with one, two and three operands."""
    answer: bool = True
    """Whether `= value` follows."""
    concentration: float = 1e5
    """Of the Dirichlet draws of the words' weights."""


def arithmetic_language(config: Expressions, rng: np.random.Generator) -> Language:
    """The preset `expressions`.

    Raises:
        BadInput: a number of operators other than 1 to 3, or shares outside of 0 to 1.
    """
    if not 1 <= config.operators <= 3:
        raise BadInput(f"`operators` per arity must be 1 to 3, got {config.operators}.")
    if not (0 < config.grow < 1 and min(config.arities) > 0):
        raise BadInput(f"grow must be above 0 and below 1, arities above 0, got {config.grow} and {config.arities}.")
    grammar = _grammar(config, rng)
    words = (*grammar.terminals, _EQUALS)
    arity, digit = _arities(words), _digit_values(words)
    features = [
        Feature("owed", "How many operands are owed?", "number", partial(_operands_due, arity)),
        Feature(
            "depth", "In how many operators does the word stand?", "number", lambda s: _mask_answer(s, s.depth - 2)
        ),
        Feature("arity", "How many operands does the word take?", "classes", partial(_arity, arity), _ARITIES),
    ]
    if not config.answer:
        judge = partial(_formed, arity)
        return Language(grammar, words, tuple(features), lambda given, lengths: judge(given, lengths).astype(int))
    features.append(
        Feature("value", "What is the value of the expression?", "classes", partial(_value, words), _DIGITS)
    )
    return Language(
        grammar,
        words,
        tuple(features),
        judge=partial(_expression_verdicts, words, arity, digit),
        verdicts=(UNGRAMMATICAL, "wrong", "right"),
        finish=lambda rng, strings: _append_answers(words, strings),
        added_words=2,
        facts=partial(_facts, words),
        fact_concept="value",
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
    """Values of whole expressions, computed from the last word to the first with a stack per string."""
    count, longest = given.shape
    rows, stack, level = np.arange(count), np.zeros((count, longest + 3), dtype=int), np.zeros(count, dtype=int)
    digit, arity = _digit_values(words), _arities(words)
    for token in reversed(range(longest)):
        word, live = given[:, token], (token < lengths) & (given[:, token] >= 0)
        first, second, third = (stack[rows, np.maximum(level - i, 0)] for i in (1, 2, 3))
        value = digit[word]
        for name in {name for names in _OPERATORS.values() for name in names} & set(words):
            value = np.where(word == words.index(name), _apply(name, first, second, third), value)
        level = np.maximum(level + np.where(live, 1 - arity[word], 0), 0)
        at = np.maximum(level - 1, 0)
        stack[rows[live], at[live]] = value[live]
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


def _digit_values(words: tuple[str, ...]) -> Ints:
    """Value of each digit; NO_SYMBOL for other words."""
    return np.array([int(word) if word in _DIGITS else NO_SYMBOL for word in words])


def _arities(words: tuple[str, ...]) -> Ints:
    """Number of operands of each word; NO_SYMBOL for words outside expressions."""
    arity_of = {name: arity for arity, names in _OPERATORS.items() for name in names} | dict.fromkeys(_DIGITS, 0)
    return np.array([arity_of.get(word, NO_SYMBOL) for word in words])


def _formed(arity: Ints, given: Ints, lengths: Ints) -> NDArray[np.bool_]:
    """Whether the first `lengths` words are one expression: the operands due fall to 0 at the last word, not before."""
    inside = np.arange(given.shape[1]) < lengths[:, None]
    known = (given >= 0) & (arity[given] >= 0)
    due = 1 + np.cumsum(np.where(inside, arity[given] - 1, 0), axis=1)
    last = np.arange(given.shape[1]) == lengths[:, None] - 1
    return (lengths > 0) & (known | ~inside).all(1) & (np.where(inside, (due == 0) == last, True)).all(1)


def _expression_verdicts(words: tuple[str, ...], arity: Ints, digit: Ints, given: Ints, lengths: Ints) -> Ints:
    bare, rows = np.maximum(lengths - 2, 0), np.arange(len(given))
    result, equals = (given[rows, np.maximum(lengths - back, 0)] for back in (1, 2))
    formed = _formed(arity, given, bare) & (equals == words.index(_EQUALS)) & (result >= 0) & (digit[result] >= 0)
    right = formed & (evaluate_expressions(words, given, np.where(formed, bare, 0)) == digit[result])
    return formed.astype(int) + right


def _append_answers(words: tuple[str, ...], strings: Strings) -> Strings:
    """Append ` = value` to each expression."""
    numbers, depth, place, role = (
        np.pad(table, ((0, 0), (0, 2)), constant_values=NO_SYMBOL)
        for table in (strings.words, strings.depth, strings.place, strings.role)
    )
    rows = np.arange(len(strings))
    digits = np.array([words.index(digit) for digit in _DIGITS])
    numbers[rows, strings.lengths] = words.index(_EQUALS)
    numbers[rows, strings.lengths + 1] = digits[evaluate_expressions(words, strings.words, strings.lengths)]
    return replace(strings, words=numbers, depth=depth, place=place, role=role, lengths=strings.lengths + 2)


def _mask_answer(strings: Strings, values: Ints) -> Floats:
    """Values at the words of the expression, NaN at its answer."""
    return np.where((strings.role >= 0) & strings.inside, values.astype(float), np.nan)


def _operands_due(arity: Ints, strings: Strings) -> Floats:
    return _mask_answer(strings, 1 + np.cumsum(np.where(strings.role >= 0, arity[strings.words] - 1, 0), axis=1))


def _arity(arity: Ints, strings: Strings) -> Floats:
    return _mask_answer(strings, arity[strings.words])


def _value(words: tuple[str, ...], strings: Strings) -> Floats:
    """The value at the equals sign, before the answer."""
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
