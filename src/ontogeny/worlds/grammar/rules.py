"""A weighted context-free grammar as data: rules with weights that sum to 1 a symbol, and what follows from them without drawing a string.

No empty right-hand sides. That a grammar's strings end with certainty, and how long they are in the mean, is the theory of
branching processes (Booth & Thompson 1973, doi:10.1109/T-C.1973.223746).
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
    """Share of this rule among those of its left side."""


@dataclass(frozen=True)
class Grammar:
    """What stands on a left side is a nonterminal; every other symbol is a terminal, that is a word."""

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
        """Expected number of words; infinite where a symbol makes one or more of its kind in the mean."""
        count, longer = len(self.nonterminals), np.zeros(len(self.nonterminals))
        children = np.zeros((count, count))
        number = {symbol: i for i, symbol in enumerate(self.nonterminals)}
        for rule in self.rules:
            for symbol in rule.right:
                if symbol in number:
                    children[number[rule.left], number[symbol]] += rule.weight
                else:
                    longer[number[rule.left]] += rule.weight
        if np.abs(np.linalg.eigvals(children)).max() >= 1 - 1e-12:
            return math.inf
        return float(np.linalg.solve(np.eye(count) - children, longer)[number[self.start]])


@dataclass(frozen=True)
class Tables:
    """The grammar as arrays: symbols are numbers, terminals first, then nonterminals; the rules of one left side stand together."""

    terminals: int
    start: int
    threshold: Floats
    """Rule r of the i-th nonterminal is drawn by i + u, u uniform in [0, 1), below threshold[r] and not below the one before."""
    weight: Floats
    left: Ints
    right: Ints
    """All right sides, one after another."""
    first: Ints
    """Where the right side of each rule begins in `right`."""
    width: Ints
    """Symbols on the right side of each rule."""
    shortest: Ints
    """Words of the shortest string that each symbol makes."""


def make_grammar(start: str, rules: Mapping[str, Mapping[str, float]]) -> Grammar:
    """Rules as text: `grammar("S", {"S": {"a S b": 0.4, "a b": 0.6}})`; weights are divided by their sum.

    Raises:
        BadInput: a rule is empty, a weight is not positive, or a symbol never comes to an end.
    """
    made = []
    for left, choices in rules.items():
        whole = math.fsum(choices.values())
        if not (choices and whole > 0 and math.isfinite(whole)):
            raise BadInput(f"the weights of {left!r} sum to {whole}. Give at least one rule with a positive weight.")
        made += [Rule(left, tuple(right.split()), weight / whole) for right, weight in choices.items()]
    return Grammar(tuple(made), start)


def _check(given: Grammar) -> None:
    sums: dict[str, list[float]] = {}
    for rule in given.rules:
        if not rule.right:
            raise BadInput(f"{rule.left!r} has an empty rule; strings without words are not told apart. Remove it.")
        if not 0 < rule.weight <= 1:
            raise BadInput(
                f"{_format_rule(rule)} has the weight {rule.weight}. A weight is above 0 and at most 1; leave the rule out."
            )
        if odd := [symbol for symbol in (rule.left, *rule.right) if symbol.split() != [symbol]]:
            raise BadInput(f"{odd[0]!r} is no symbol: white space stands between symbols, never in one. Rename it.")
        sums.setdefault(rule.left, []).append(rule.weight)
    if given.start not in sums:
        raise BadInput(f"no rule for the start symbol {given.start!r}. Give one.")
    for left, weights in sums.items():
        if abs(math.fsum(weights) - 1) > 1e-9:
            raise BadInput(
                f"the weights of {left!r} sum to {math.fsum(weights):.6g}, not to 1. `grammar` divides them."
            )
    if len({(rule.left, rule.right) for rule in given.rules}) < len(given.rules):
        raise BadInput("a rule stands twice. Add up the weights of the two.")
    if endless := sorted(set(sums) - set(_shortest(given.rules))):
        raise BadInput(
            f"{endless[0]!r} makes no string of words, only more symbols. Give it a rule that comes to an end."
        )


def _shortest(rules: Sequence[Rule]) -> dict[str, int]:
    """Words of the shortest string of each nonterminal that has one."""
    left = {rule.left for rule in rules}
    found: dict[str, int] = {}
    grown = True
    while grown:
        grown = False
        for rule in rules:
            if all(symbol in found or symbol not in left for symbol in rule.right):
                length = sum(found.get(symbol, 1) for symbol in rule.right)
                if length < found.get(rule.left, math.inf):
                    found[rule.left], grown = length, True
    return found


def _tables(given: Grammar) -> Tables:
    words = len(given.terminals)
    number = {symbol: i for i, symbol in enumerate((*given.terminals, *given.nonterminals))}
    rules = sorted(given.rules, key=lambda rule: number[rule.left])
    left = np.array([number[rule.left] for rule in rules])
    weight = np.array([rule.weight for rule in rules])
    width = np.array([len(rule.right) for rule in rules])
    threshold = np.zeros(len(rules))
    for symbol in np.unique(left):
        own = np.flatnonzero(left == symbol)
        # The last ends at the next whole number exactly: no rounding may lead to another symbol's rules.
        threshold[own] = symbol - words + np.append(np.cumsum(weight[own])[:-1], 1.0)
    shortest = _shortest(given.rules)
    return Tables(
        terminals=words,
        start=number[given.start],
        threshold=threshold,
        weight=weight,
        left=left,
        right=np.array([number[symbol] for rule in rules for symbol in rule.right]),
        first=np.cumsum(width) - width,
        width=width,
        shortest=np.array([*np.ones(words, dtype=int), *(shortest[symbol] for symbol in given.nonterminals)]),
    )


def _format_rule(rule: Rule) -> str:
    return f"{rule.left} -> {' '.join(rule.right)}"
