"""Sampling strings from a grammar in batches: each round replaces every open symbol of every string by a rule's right side.

A string whose shortest completion exceeds the length cap is dropped at once and counted. The others are exact draws from the grammar's
strings up to that length. Each word keeps its place in the derivation.
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
    """A batch of strings. Arrays are string × token, NO_SYMBOL after the end; `lengths` and `log_probability` are by string."""

    words: Ints
    """Numbers of terminals."""
    lengths: Ints
    depth: Ints
    """Nonterminals above the word."""
    place: Ints
    """Place of the word in its rule's right side, from 0; a phrase of one word has its place in the rule above."""
    role: Ints
    """Number of the nonterminal above the word: its part of speech."""
    log_probability: Floats
    """Of the derivation, which is that of the string unless it is ambiguous."""
    drawn: int
    """Number of strings begun."""
    rejected: int
    """Number of begun strings that exceeded the cap."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """True for tokens, False after the end."""
        return np.arange(self.words.shape[1]) < self.lengths[:, None]


def sample_strings(grammar: Grammar, rng: np.random.Generator, count: int, longest: int) -> Strings:
    """Draw `count` strings of at most `longest` words.

    Raises:
        BadInput: almost no string is that short.
    """
    if (least := grammar.tables.shortest[grammar.tables.start]) > longest:
        raise BadInput(f"`longest` must be at least {least}, the length of the shortest string, got {longest}.")
    parts, kept, begun = [], 0, 0
    while kept < count:
        batch = _batch(grammar, rng, min(_BATCH_STRINGS, max(64, 2 * (count - kept))), longest)
        parts.append(batch)
        kept, begun = kept + len(batch), begun + batch.drawn
        if begun > 100 * _BATCH_STRINGS and kept < begun / 1000:
            raise BadInput(
                f"only {kept} of {begun} strings have at most {longest} words: raise `longest`, or the weights of short rules."
            )
    return _head(parts, count, longest)


def _batch(grammar: Grammar, rng: np.random.Generator, count: int, longest: int) -> Strings:
    tables = grammar.tables
    log_weight = np.log(tables.weight)
    log_probability = np.zeros(count)
    none = np.full(count, NO_SYMBOL)
    # Columns: the symbols of all strings, one after another. Rows: symbol, string, depth, place, role.
    flat = np.stack([np.full(count, tables.start), np.arange(count), np.zeros(count, dtype=int), none, none])
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
    """Replace every opened symbol by the right side of its rule."""
    width = tables.width[rule]
    copies = np.ones(flat.shape[1], dtype=int)
    copies[opened] = width
    nth = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
    at = np.repeat(np.cumsum(copies)[opened] - width, width) + nth
    grown = np.repeat(flat, copies, axis=1)
    grown[0, at] = tables.right[np.repeat(tables.first[rule], width) + nth]
    grown[2, at] += 1
    # A word that is a whole phrase, such as an adjective, keeps the place of its phrase.
    alone = (np.repeat(width, width) == 1) & (grown[0, at] < tables.terminals) & (grown[3, at] >= 0)
    grown[3, at] = np.where(alone, grown[3, at], nth)
    grown[4, at] = np.repeat(parent, width)
    return grown


def _rows(owner: Ints, flat: tuple[Ints, ...], log_probability: Floats, longest: int) -> Strings:
    """One row per remaining string, in the order in which they were begun."""
    begun = len(log_probability)
    lengths = np.bincount(owner, minlength=begun)
    kept = np.flatnonzero(lengths)
    row = np.cumsum(lengths > 0)[owner] - 1
    column = np.arange(owner.size) - (np.cumsum(lengths) - lengths)[owner]
    tables = np.full((len(flat), kept.size, longest), NO_SYMBOL)
    for table, values in zip(tables, flat, strict=True):
        table[row, column] = values
    words, depth, place, role = tables
    return Strings(
        words, lengths[kept], depth, place, role, log_probability[kept], drawn=begun, rejected=begun - kept.size
    )


def _head(parts: list[Strings], count: int, longest: int) -> Strings:
    """The first `count` strings of several batches; a batch is complete, so long derivations are not underrepresented."""
    if not parts:
        none = np.zeros((0, longest), dtype=int)
        return Strings(none, none[:, 0], none, none, none, np.zeros(0), drawn=0, rejected=0)
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])[:count]
        for name in ("words", "lengths", "depth", "place", "role", "log_probability")
    }
    return Strings(**joined, drawn=sum(part.drawn for part in parts), rejected=sum(part.rejected for part in parts))
