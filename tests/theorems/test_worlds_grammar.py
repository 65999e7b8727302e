"""Grammars: chart probabilities equal sums over all derivations, and samples have these probabilities.

The reference enumerates the strings of every symbol, shortest first, without a chart.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ontogeny.worlds.grammar.parser import length_probabilities, log_probabilities, recognise
from ontogeny.worlds.grammar.rules import Grammar, make_grammar
from ontogeny.worlds.grammar.sampling import sample_strings

LONGEST = 5
small = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])


@st.composite
def grammars(draw_from) -> Grammar:
    """One to three symbols, two words, right sides of one to four: chains, cycles, left and right recursion, ambiguity."""
    left = "SAB"[: draw_from(st.integers(1, 3))]
    sides = st.lists(st.sampled_from((*left, "x", "y")), min_size=1, max_size=4).map(" ".join)
    rules = {}
    for symbol in left:
        choices = draw_from(st.dictionaries(sides, st.integers(1, 4), max_size=3))
        ends = draw_from(st.sampled_from(("x", "y", "x y")))
        rules[symbol] = {side: weight for side, weight in choices.items() if side != symbol} | {ends: 5}
    made = make_grammar("S", rules)
    assume(made.mean_length < 8)
    return made


def enumerated(made: Grammar, longest: int) -> dict[tuple[str, ...], float]:
    """Probability of every string of at most `longest` words that the grammar makes."""
    found: dict[str, dict[tuple[str, ...], float]] = {rule.left: {} for rule in made.rules}
    for _ in range(400):
        new: dict[str, dict[tuple[str, ...], float]] = {symbol: {} for symbol in found}
        for rule in made.rules:
            parts = {(): rule.weight}
            for symbol in rule.right:
                tails = found.get(symbol, {(symbol,): 1.0})
                grown: dict[tuple[str, ...], float] = {}
                for (head, p), (tail, q) in itertools.product(parts.items(), tails.items()):
                    if len(head) + len(tail) <= longest:
                        grown[head + tail] = grown.get(head + tail, 0.0) + p * q
                parts = grown
            for string, p in parts.items():
                new[rule.left][string] = new[rule.left].get(string, 0.0) + p
        change = max((abs(p - found[s].get(k, 0.0)) for s, d in new.items() for k, p in d.items()), default=0.0)
        found = new
        if change < 1e-14:
            break
    return found[made.start]


def everything(made: Grammar, longest: int) -> list[tuple[int, ...]]:
    """All strings over the grammar's words, in the language or not."""
    words = range(len(made.terminals))
    return [s for length in range(1, longest + 1) for s in itertools.product(words, repeat=length)]


def table(strings: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(string) for string in strings])
    words = np.full((len(strings), lengths.max()), -1)
    for row, string in zip(words, strings, strict=True):
        row[: len(string)] = string
    return words, lengths


@given(grammars())
@small
def test_probabilities_sum_over_all_derivations(made: Grammar) -> None:
    strings = everything(made, LONGEST)
    known = enumerated(made, LONGEST)
    expected = np.array([known.get(tuple(made.terminals[w] for w in s), 0.0) for s in strings])
    assert expected.max() > 0
    np.testing.assert_allclose(np.exp(log_probabilities(made, *table(strings))), expected, rtol=1e-9, atol=1e-13)


@given(grammars())
@small
def test_recogniser_accepts_exactly_the_language(made: Grammar) -> None:
    strings = everything(made, LONGEST)
    known = enumerated(made, LONGEST)
    expected = [tuple(made.terminals[w] for w in s) in known for s in strings]
    assert recognise(made, *table(strings)).tolist() == expected


@given(grammars())
@small
def test_length_probabilities_sum_to_one(made: Grammar) -> None:
    by_length = length_probabilities(made, 300)
    strings = everything(made, LONGEST)
    likely = np.exp(log_probabilities(made, *table(strings)))
    summed = np.bincount([len(s) for s in strings], weights=likely, minlength=LONGEST + 1)
    np.testing.assert_allclose(summed, by_length[: LONGEST + 1], rtol=1e-9, atol=1e-13)
    # What is missing to 1 is the share of longer strings, which Markov's inequality bounds by the mean length.
    assert -1e-9 <= 1 - by_length.sum() <= made.mean_length / 301 + 1e-9
    if 1 - by_length.sum() < 1e-12:
        assert math.isclose(by_length @ np.arange(301), made.mean_length, rel_tol=1e-6)


@given(grammars(), st.integers(0, 2**32 - 1))
@small
def test_samples_are_recognised_and_at_least_as_likely_as_their_derivation(made: Grammar, seed: int) -> None:
    drawn = sample_strings(made, np.random.default_rng(seed), 200, 12)
    assert len(drawn) == 200
    assert drawn.lengths.max() <= 12
    assert ((drawn.words >= 0) == drawn.inside).all()
    assert recognise(made, drawn.words, drawn.lengths).all()
    likely = log_probabilities(made, drawn.words, drawn.lengths)
    assert (likely >= drawn.log_probability - 1e-9).all()


@given(grammars())
@small
def test_rejection_rate_is_the_share_of_too_long_strings(made: Grammar) -> None:
    drawn = sample_strings(made, np.random.default_rng(0), 3000, 4)
    tail = 1 - length_probabilities(made, 4).sum()
    error = math.sqrt(max(tail * (1 - tail), 1e-12) / drawn.drawn)
    assert abs(drawn.rejected / drawn.drawn - tail) < 5 * error + 1e-9


AMBIGUOUS = make_grammar(
    "S", {"S": {"S S": 0.25, "A": 0.15, "x S y": 0.2, "x y": 0.4}, "A": {"S": 0.3, "B": 0.3, "y": 0.4}, "B": {"A": 1}}
)


@pytest.mark.parametrize("cap", [4, 7])
def test_sample_frequencies_match_conditional_probabilities(cap: int) -> None:
    count = 40_000
    drawn = sample_strings(AMBIGUOUS, np.random.default_rng(1), count, cap)
    known = enumerated(AMBIGUOUS, cap)
    whole = sum(known.values())
    assert whole < 0.97  # the cap takes something away
    seen = dict.fromkeys(known, 0)
    for row, length in zip(drawn.words, drawn.lengths, strict=True):
        seen[tuple(AMBIGUOUS.terminals[word] for word in row[:length])] += 1
    frequent = {string: p / whole for string, p in known.items() if count * p / whole >= 10}
    squares = sum((seen[s] - count * p) ** 2 / (count * p) for s, p in frequent.items())
    freedom = len(frequent) - 1
    assert freedom > 5
    assert squares < freedom + 5 * math.sqrt(2 * freedom)
    # A test that could not fail would accept the strings' probabilities in another order as well.
    others = dict(zip(frequent, np.roll(list(frequent.values()), 1).tolist(), strict=True))
    assert sum((seen[s] - count * p) ** 2 / (count * p) for s, p in others.items()) > 20 * squares


def test_unit_cycle_is_summed_to_its_limit() -> None:
    made = make_grammar("S", {"S": {"A": 0.5, "x": 0.5}, "A": {"S": 0.9, "y": 0.1}})
    words, lengths = table([(made.terminals.index("x"),), (made.terminals.index("y"),)])
    # S ends in x with .5 / (1 - .45), in y with .05 / (1 - .45).
    np.testing.assert_allclose(np.exp(log_probabilities(made, words, lengths)), [0.5 / 0.55, 0.05 / 0.55], rtol=1e-12)


def test_long_strings_do_not_underflow() -> None:
    made = make_grammar("S", {"S": {"w S": 0.5, "w": 0.5}, "w": {f"w{i}": 1 for i in range(1000)}})
    words = np.random.default_rng(0).integers(1000, size=(3, 200))
    expected = 200 * math.log(1 / 2000)  # below the smallest float64
    assert math.exp(expected) == 0
    np.testing.assert_allclose(log_probabilities(made, words, np.full(3, 200)), expected, rtol=1e-12)
