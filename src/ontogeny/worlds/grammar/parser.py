"""Chart parser for batches of strings: recognition (CYK) and probabilities (inside algorithm, doi:10.1121/1.2017061).

One chart serves two algebras: bits for recognition, with one cell of 64 strings per machine word, and float64 for probabilities. Chains of
unit rules are summed by the closure (1 - U)⁻¹, so cycles of them are exact too (arXiv:cmp-lg/9411029).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ontogeny.worlds.grammar.rules import Floats, Grammar, Ints
from ontogeny.worlds.grammar.sampling import NO_SYMBOL

_Bools = NDArray[np.bool_]
_Array = NDArray[Any]
_Chart = list[_Array]
"""One array per phrase length: start × symbol × string (or 64 strings). The first is empty."""
_MAX_CELLS = 2**23
"""Maximum number of cells in a chart; strings are parsed in batches of that size."""


@dataclass(frozen=True)
class BinaryGrammar:
    """A grammar with rules of two symbols or one word, and its chains of unit rules."""

    left: Ints
    """Left sides of the rules of two symbols, in ascending order."""
    one: Ints
    two: Ints
    weight: Floats
    lexical: Floats
    """Weight of a word under a symbol: symbol × terminal."""
    chains: Floats
    """Weight of all chains of unit rules from the row's symbol to the column's, including the empty chain."""
    start: int


def recognise(grammar: Grammar, words: Ints, lengths: Ints) -> _Bools:
    """Whether each string is in the language; `words` are numbers of terminals, any other number is an unknown word."""
    binary = binarise(grammar)
    accepted = np.zeros(len(words), dtype=bool)
    for part in _length_batches(binary, lengths, packed=True):
        accepted[part] = _recognise_batch(binary, words[part], lengths[part])
    return accepted


def log_probabilities(grammar: Grammar, words: Ints, lengths: Ints) -> Floats:
    """Natural logarithm of each string's probability, summed over its derivations; minus infinity outside the language."""
    binary = binarise(grammar)
    logs = np.full(len(words), -np.inf)
    for part in _length_batches(binary, lengths, packed=False):
        logs[part] = _log_probability_batch(binary, words[part], lengths[part])
    return logs


def length_probabilities(grammar: Grammar, longest: int) -> Floats:
    """Share of the grammar's strings with 0, 1, …, `longest` words; the rest is longer."""
    binary = binarise(grammar)
    by_length = np.zeros((longest + 1, len(binary.chains)))
    for length in range(1, longest + 1):
        if length == 1:
            direct = binary.lexical.sum(1)
        else:
            pairs = (by_length[1:length, binary.one] * by_length[length - 1 : 0 : -1, binary.two]).sum(0)
            direct = np.bincount(binary.left, weights=binary.weight * pairs, minlength=len(binary.chains))
        by_length[length] = binary.chains @ direct
    return by_length[:, binary.start]


def binarise(grammar: Grammar) -> BinaryGrammar:
    """Split right sides of three or more symbols into pairs, with new symbols for their remainders."""
    names = {symbol: i for i, symbol in enumerate(grammar.nonterminals)}
    words = {word: i for i, word in enumerate(grammar.terminals)}
    start = names[grammar.start]
    pairs: list[tuple[int, int, int, float]] = []
    units: list[tuple[int, int, float]] = []
    lexical: list[tuple[int, int, float]] = []

    def number(rest: tuple[str, ...]) -> int:
        """Number of the symbol for a remainder, or for a word in it; created on first use."""
        key = rest[0] if len(rest) == 1 and rest[0] not in words else " ".join(("", *rest))
        if key not in names:
            names[key] = len(names)
            add(names[key], rest, 1.0)
        return names[key]

    def add(left: int, right: tuple[str, ...], weight: float) -> None:
        if len(right) > 1:
            pairs.append((left, number(right[:1]), number(right[1:]), weight))
        elif right[0] in words:
            lexical.append((left, words[right[0]], weight))
        else:
            units.append((left, names[right[0]], weight))

    for rule in grammar.rules:
        add(names[rule.left], rule.right, rule.weight)
    pairs.sort()
    left, one, two = np.array([pair[:3] for pair in pairs], dtype=np.int64).reshape(-1, 3).T
    return BinaryGrammar(
        left,
        one,
        two,
        np.array([weight for *_, weight in pairs], dtype=np.float64),
        lexical=_matrix(lexical, (len(names), len(words))),
        chains=_closure(_matrix(units, (len(names), len(names)))),
        start=start,
    )


def _closure(units: Floats) -> Floats:
    """Sum of all powers; set to exactly 0 where no chain exists, since the inverse has rounding errors."""
    reached = np.eye(len(units), dtype=bool) | (units > 0)
    for _ in range(len(units).bit_length()):
        reached = reached @ reached
    return np.where(reached, np.linalg.inv(np.eye(len(units)) - units), 0.0)


def _matrix(entries: list[tuple[int, int, float]], shape: tuple[int, int]) -> Floats:
    matrix = np.zeros(shape)
    for row, column, weight in entries:
        matrix[row, column] += weight
    return matrix


def _chart(
    leaves: _Array, longest: int, binary: BinaryGrammar, both: Any, either: Any, finish: Callable[[_Array], _Array]
) -> _Chart:
    """Cells of all phrases: `both` combines two adjacent phrases, `either` sums over cuts, `finish` applies rules and chains."""
    chart = [leaves[:0], leaves]
    for length in range(2, longest + 1):
        starts = longest - length + 1
        ways = both(chart[1][:starts, binary.one], chart[length - 1][1 : 1 + starts, binary.two])
        for cut in range(2, length):
            cut_ways = both(chart[cut][:starts, binary.one], chart[length - cut][cut : cut + starts, binary.two])
            either(ways, cut_ways, out=ways)
        chart.append(finish(ways))
    return chart


def _recognise_batch(binary: BinaryGrammar, words: Ints, lengths: Ints) -> _Bools:
    """64 strings per machine word: one `and` evaluates a rule, a place and a cut for all of them."""
    longest = int(lengths.max(initial=1))
    empty = -len(words) % 64
    known = np.pad(words[:, :longest], ((0, empty), (0, 0)), constant_values=NO_SYMBOL)
    chains, symbols = binary.chains > 0, len(binary.chains)
    reach = (chains @ (binary.lexical > 0)).T  # word × symbol
    possible = np.where(_inside(binary, known)[..., None], reach[known], False).transpose(1, 2, 0)
    leaves = np.ascontiguousarray(np.packbits(possible, axis=-1, bitorder="little")).view(np.uint64)
    heads, begins = np.unique(binary.left, return_index=True)
    above = [(int(high), int(low)) for high, low in np.argwhere(chains) if high != low and low in heads]

    def finish(ways: _Array) -> _Array:
        cells = np.zeros((len(ways), symbols, leaves.shape[-1]), dtype=np.uint64)
        cells[:, heads] = np.bitwise_or.reduceat(ways, begins, axis=1)
        own = cells.copy()
        for high, low in above:
            cells[:, high] |= own[:, low]
        return cells

    top = _start_symbol_cells(
        _chart(leaves, _reachable(binary, longest), binary, np.bitwise_and, np.bitwise_or, finish), binary, longest
    )
    bits = np.unpackbits(top.view(np.uint8), axis=-1, bitorder="little")[:, : len(words)].astype(bool)
    return bits[lengths, np.arange(len(words))]


def _log_probability_batch(binary: BinaryGrammar, words: Ints, lengths: Ints) -> Floats:
    """Word probabilities are multiplied by `scale`, so that long strings do not underflow float64; the logarithm is corrected."""
    longest = int(lengths.max(initial=1))
    known = words[:, :longest]
    scale = float(binary.lexical.shape[1])
    lexical = scale * (binary.chains @ binary.lexical).T
    leaves = np.where(_inside(binary, known)[..., None], lexical[known], 0.0).transpose(1, 2, 0)
    rules = np.zeros((len(binary.chains), len(binary.left)))
    rules[binary.left, np.arange(len(binary.left))] = binary.weight
    rules = binary.chains @ rules
    chart = _chart(leaves, _reachable(binary, longest), binary, np.multiply, np.add, lambda ways: rules @ ways)
    inside = _start_symbol_cells(chart, binary, longest)[lengths, np.arange(len(words))]
    with np.errstate(divide="ignore"):
        return np.log(inside) - lengths * np.log(scale)


def _inside(binary: BinaryGrammar, words: Ints) -> _Bools:
    return (words >= 0) & (words < binary.lexical.shape[1])


def _reachable(binary: BinaryGrammar, longest: int) -> int:
    """Longest phrase to parse; one word if there are no rules of two symbols."""
    return longest if len(binary.left) else 1


def _start_symbol_cells(chart: _Chart, binary: BinaryGrammar, longest: int) -> _Array:
    """Length × string (or 64 strings): the cell of the start symbol over the first words, by their number."""
    tops = np.zeros((longest + 1, chart[1].shape[-1]), dtype=chart[1].dtype)
    for length, cells in enumerate(chart[1:], start=1):
        tops[length] = cells[0, binary.start]
    return tops


def _length_batches(binary: BinaryGrammar, lengths: Ints, *, packed: bool) -> list[Ints]:
    """Indices of strings to parse together: similar in length, at most `_MAX_CELLS` cells."""
    order = np.argsort(lengths, kind="stable")
    batches, at = [], 0
    while at < len(order):
        size = len(order) - at
        while size > 64 and _cells(binary, int(lengths[order[at + size - 1]]), size, packed=packed) > _MAX_CELLS:
            size //= 2
        batches.append(order[at : at + size])
        at += size
    return batches


def _cells(binary: BinaryGrammar, longest: int, strings: int, *, packed: bool) -> int:
    cells = longest * (longest + 1) // 2 * len(binary.chains) + 3 * longest * len(binary.left)
    return cells * (-(-strings // 64) if packed else strings)
