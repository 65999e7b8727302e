"""Strings drawn from a grammar, all at once: every round replaces each open symbol of every string by a rule's right side.

What is cut away is known: a string whose shortest completion is longer than the cap is dropped at once, and counted. The others are
exact draws from the grammar's strings up to that length. Where each word came from in its derivation is kept beside it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ontogeny.errors import BadInput
from ontogeny.worlds.grammar.rules import Floats, Grammar, Ints, Tables

NO_SYMBOL = -1
_BATCH_STRINGS = 4096


@dataclass(frozen=True)
class Strings:
    """Arrays are indexed by string and token, NOTHING behind the end of a string; `lengths` and `log_probability` by string."""

    words: Ints
    """Numbers of terminals."""
    lengths: Ints
    depth: Ints
    """Nonterminals above the word."""
    place: Ints
    """Place of the word on the right side that made it, or of the phrase of this one word on the side above: 0 for the first."""
    role: Ints
    """Number of the nonterminal that made the word: its part of speech."""
    log_probability: Floats
    """Of the derivation; of the string where it has one derivation only."""
    drawn: int
    """Strings begun until these were there."""
    rejected: int
    """How many of those begun were longer than the cap."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """True for tokens, False behind the end."""
        return np.arange(self.words.shape[1]) < self.lengths[:, None]


def sample_strings(grammar: Grammar, rng: np.random.Generator, count: int, longest: int) -> Strings:
    """`count` strings of at most `longest` words.

    Raises:
        BadInput: hardly any string is that short.
    """
    if grammar.tables.shortest[grammar.tables.start] > longest:
        least = grammar.tables.shortest[grammar.tables.start]
        raise BadInput(f"no string of at most {longest} words: the shortest has {least}. Raise the cap on the length.")
    parts, there, begun = [], 0, 0
    while there < count:
        more = _batch(grammar, rng, min(_BATCH_STRINGS, max(64, 2 * (count - there))), longest)
        parts.append(more)
        there, begun = there + len(more), begun + more.drawn
        if begun > 100 * _BATCH_STRINGS and there < begun / 1000:
            raise BadInput(
                f"of {begun} strings {there} had at most {longest} words. Raise the cap on the length, or the weights of short rules."
            )
    return _head(parts, count, longest)


def _batch(grammar: Grammar, rng: np.random.Generator, count: int, longest: int) -> Strings:
    tables = grammar.tables
    log_weight = np.log(tables.weight)
    log_probability = np.zeros(count)
    nothing = np.full(count, NO_SYMBOL)
    # Columns are symbols of all strings, one after another; rows say which symbol, whose, how deep, in which place, made by whom.
    flat = np.stack([np.full(count, tables.start), np.arange(count), np.zeros(count, dtype=int), nothing, nothing])
    finished = []
    while (opened := np.flatnonzero(flat[0] >= tables.terminals)).size:
        parent = flat[0, opened] - tables.terminals
        rule = np.searchsorted(tables.threshold, parent + rng.random(opened.size), side="right")
        log_probability += np.bincount(flat[1, opened], weights=log_weight[rule], minlength=count)
        flat = _expand_symbols(tables, flat, opened, parent, rule)
        least = np.bincount(flat[1], weights=tables.shortest[flat[0]], minlength=count)
        if (least > longest).any():
            flat = flat[:, least[flat[1]] <= longest]
        busy = np.bincount(flat[1], weights=flat[0] >= tables.terminals, minlength=count)[flat[1]] > 0
        if 2 * busy.sum() < busy.size:
            finished.append(flat[:, ~busy])
            flat = flat[:, busy]
    whole = np.concatenate([*finished, flat], axis=1)
    symbol, owner, *origin = whole[:, np.argsort(whole[1], kind="stable")]
    return _rows(owner, (symbol, *origin), log_probability, longest)


def _expand_symbols(tables: Tables, flat: Ints, opened: Ints, parent: Ints, rule: Ints) -> Ints:
    """Every opened symbol replaced by the right side of its rule."""
    width = tables.width[rule]
    copies = np.ones(flat.shape[1], dtype=int)
    copies[opened] = width
    nth = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
    at = np.repeat(np.cumsum(copies)[opened] - width, width) + nth
    grown = np.repeat(flat, copies, axis=1)
    grown[0, at] = tables.right[np.repeat(tables.first[rule], width) + nth]
    grown[2, at] += 1
    # A word that is a phrase of its own, such as an adjective, keeps the place of its phrase.
    alone = (np.repeat(width, width) == 1) & (grown[0, at] < tables.terminals) & (grown[3, at] >= 0)
    grown[3, at] = np.where(alone, grown[3, at], nth)
    grown[4, at] = np.repeat(parent, width)
    return grown


def _rows(owner: Ints, flat: tuple[Ints, ...], log_probability: Floats, longest: int) -> Strings:
    """One row a string that is left, in the order in which they were begun."""
    lengths = np.bincount(owner, minlength=len(log_probability))
    kept = np.flatnonzero(lengths)
    row = np.cumsum(lengths > 0)[owner] - 1
    column = np.arange(owner.size) - (np.cumsum(lengths) - lengths)[owner]
    tables = np.full((len(flat), kept.size, longest), NO_SYMBOL)
    for table, values in zip(tables, flat, strict=True):
        table[row, column] = values
    words, depth, place, role = tables
    begun = len(log_probability)
    return Strings(
        words, lengths[kept], depth, place, role, log_probability[kept], drawn=begun, rejected=begun - kept.size
    )


def _head(parts: list[Strings], count: int, longest: int) -> Strings:
    """The first `count` of several batches. All strings of a batch were begun together: none is left out for being slow."""
    if not parts:
        none = np.zeros((0, longest), dtype=int)
        return Strings(none, none[:, 0], none, none, none, np.zeros(0), drawn=0, rejected=0)
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])[:count]
        for name in ("words", "lengths", "depth", "place", "role", "log_probability")
    }
    return Strings(**joined, drawn=sum(part.drawn for part in parts), rejected=sum(part.rejected for part in parts))
