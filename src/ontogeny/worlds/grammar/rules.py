"""Weighted context-free grammars as data: rules whose weights sum to 1 per symbol, and properties that follow without sampling.

Right-hand sides are never empty. The mean length of strings follows from the theory of branching processes (Booth & Thompson 1973,
doi:10.1109/T-C.1973.223746).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rule:
    left: str
    right: tuple[str, ...]
    weight: float
    """Probability of this rule among those of its left side."""


@dataclass(frozen=True)
class Grammar:
    """Rules and a start symbol. A symbol on a left side is a nonterminal; every other symbol is a terminal, that is a word."""

    rules: tuple[Rule, ...]
    start: str

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def nonterminals(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(rule.left for rule in self.rules))

    @cached_property
    def terminals(self) -> tuple[str, ...]:
        left = set(self.nonterminals)
        return tuple(dict.fromkeys(symbol for rule in self.rules for symbol in rule.right if symbol not in left))

    @cached_property
    def tables(self) -> "Tables":
        return _tables(self)

    @cached_property
    def mean_length(self) -> float:
        """Expected number of words; infinite if a symbol produces at least one copy of itself in the mean."""
        count, words = len(self.nonterminals), np.zeros(len(self.nonterminals))
        children = np.zeros((count, count))
        number = {symbol: i for i, symbol in enumerate(self.nonterminals)}
        for rule in self.rules:
            for symbol in rule.right:
                if symbol in number:
                    children[number[rule.left], number[symbol]] += rule.weight
                else:
                    words[number[rule.left]] += rule.weight
        if np.abs(np.linalg.eigvals(children)).max() >= 1 - 1e-12:
            return math.inf
        return float(np.linalg.solve(np.eye(count) - children, words)[number[self.start]])


@dataclass(frozen=True)
class Tables:
    """A grammar as arrays: symbols are numbers, terminals first; the rules of one left side are adjacent."""

    terminals: int
    start: int
    threshold: Floats
    """A rule of the i-th nonterminal is the first r with i + u < threshold[r], u uniform in [0, 1)."""
    weight: Floats
    left: Ints
    right: Ints
    """All right sides, concatenated."""
    first: Ints
    """Start of each rule's right side in `right`."""
    width: Ints
    """Symbols on the right side of each rule."""
    shortest: Ints
    """Length of the shortest string of each symbol."""


def make_grammar(start: str, rules: Mapping[str, Mapping[str, float]]) -> Grammar:
    """A grammar from text: `make_grammar("S", {"S": {"a S b": 0.4, "a b": 0.6}})`; weights are divided by their sum.

    Raises:
        BadInput: a rule is empty, a weight is not positive, or a symbol never ends in words.
    """
    parsed = []
    for left, choices in rules.items():
        total = math.fsum(choices.values())
        if not (choices and total > 0 and math.isfinite(total)):
            raise BadInput(f"the weights of {left!r} must have a positive sum, got {total}.")
        parsed += [Rule(left, tuple(right.split()), weight / total) for right, weight in choices.items()]
    return Grammar(tuple(parsed), start)


def _check(grammar: Grammar) -> None:
    weights_of: dict[str, list[float]] = {}
    for rule in grammar.rules:
        if not rule.right:
            raise BadInput(f"{rule.left!r} has an empty rule: remove it.")
        if not 0 < rule.weight <= 1:
            raise BadInput(
                f"the weight of {rule.left} -> {' '.join(rule.right)} must be above 0 and at most 1, got {rule.weight}."
            )
        for symbol in (rule.left, *rule.right):
            if symbol.split() != [symbol]:
                raise BadInput(f"a symbol must be without white space, got {symbol!r}: rename it.")
        weights_of.setdefault(rule.left, []).append(rule.weight)
    if grammar.start not in weights_of:
        raise BadInput(f"the start symbol {grammar.start!r} has no rule: add one.")
    for left, weights in weights_of.items():
        if abs((total := math.fsum(weights)) - 1) > 1e-9:
            raise BadInput(
                f"the weights of {left!r} must sum to 1, got {total:.6g}: use make_grammar, which divides them."
            )
    if len({(rule.left, rule.right) for rule in grammar.rules}) < len(grammar.rules):
        raise BadInput("a rule is repeated: add up the weights of the two.")
    if endless := sorted(set(weights_of) - set(_shortest(grammar.rules))):
        raise BadInput(f"{endless[0]!r} never ends in words: give it a rule that does.")


def _shortest(rules: Sequence[Rule]) -> dict[str, int]:
    """Length of the shortest string of each nonterminal that has one."""
    left = {rule.left for rule in rules}
    shortest: dict[str, int] = {}
    changed = True
    while changed:
        changed = False
        for rule in rules:
            if all(symbol in shortest or symbol not in left for symbol in rule.right):
                length = sum(shortest.get(symbol, 1) for symbol in rule.right)
                if length < shortest.get(rule.left, math.inf):
                    shortest[rule.left], changed = length, True
    return shortest


def _tables(grammar: Grammar) -> Tables:
    words = len(grammar.terminals)
    number = {symbol: i for i, symbol in enumerate((*grammar.terminals, *grammar.nonterminals))}
    rules = sorted(grammar.rules, key=lambda rule: number[rule.left])
    left = np.array([number[rule.left] for rule in rules])
    weight = np.array([rule.weight for rule in rules])
    width = np.array([len(rule.right) for rule in rules])
    threshold = np.zeros(len(rules))
    for symbol in np.unique(left):
        own = np.flatnonzero(left == symbol)
        # The last threshold is exactly the next integer, so that rounding cannot select another symbol's rules.
        threshold[own] = symbol - words + np.append(np.cumsum(weight[own])[:-1], 1.0)
    shortest = _shortest(grammar.rules)
    return Tables(
        terminals=words,
        start=number[grammar.start],
        threshold=threshold,
        weight=weight,
        left=left,
        right=np.array([number[symbol] for rule in rules for symbol in rule.right]),
        first=np.cumsum(width) - width,
        width=width,
        shortest=np.array([*np.ones(words, dtype=int), *(shortest[symbol] for symbol in grammar.nonterminals)]),
    )
