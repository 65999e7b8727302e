"""Dyck: nested brackets of several kinds; the bracket that must close is often far back in the text (arXiv:2410.11767)."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from ontogeny.data.examples import Answer
from ontogeny.errors import BadInput
from ontogeny.worlds.grammar.language import Feature, Language, mask_padding, render_words, word_weights
from ontogeny.worlds.grammar.rules import Floats, Grammar, Ints, make_grammar
from ontogeny.worlds.grammar.sampling import Strings

_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"), ("<", ">"))


@dataclass(frozen=True)
class Dyck:
    kinds: int = 2
    """Kinds of brackets."""
    join: float = 0.3
    """Share of strings that consist of two strings."""
    nest: float = 0.5
    """Share of brackets that are not empty."""
    depth: int | None = None
    """Maximum number of brackets open at a time; None: no limit."""
    concentration: float = 1e5
    """Of the Dirichlet draw of the kinds' weights."""


def dyck_language(config: Dyck, rng: np.random.Generator) -> Language:
    """The preset `dyck`.

    Raises:
        BadInput: no kinds, no depth, or shares outside of 0 to 1.
    """
    if config.kinds < 1 or (config.depth is not None and config.depth < 1):
        raise BadInput(f"kinds and depth of brackets must be at least 1, got {config.kinds} and {config.depth}.")
    if not (0 < config.join < 0.5 and 0 < config.nest < 1):
        raise BadInput(
            f"join must be above 0 and below 0.5, nest above 0 and below 1, got {config.join} and {config.nest}."
        )
    pairs = [_BRACKETS[i] if i < len(_BRACKETS) else (f"({i}", f"){i}") for i in range(config.kinds)]
    weights = word_weights(rng, tuple(f"B{i}" for i in range(config.kinds)), config.concentration)
    grammar = _grammar(config, pairs, weights)
    words, deepest = grammar.terminals, config.depth or np.inf
    features = [
        Feature("depth", "How many brackets are open?", "number", _depth),
        Feature("since_open", "How far back is the bracket that must close next?", "number", _since),
    ]
    if config.kinds > 1:
        opened = tuple(opening for opening, _ in pairs)
        features.insert(0, Feature("open_kind", "Which bracket must close next?", "classes", _kind, opened))
    return Language(
        grammar,
        words,
        tuple(features),
        judge=lambda words, lengths: _balanced(words, lengths, config.kinds, deepest).astype(int),
        facts=partial(_facts, words, config.kinds),
        fact_concept="open_kind",
    )


def _grammar(config: Dyck, pairs: list[tuple[str, str]], weights: dict[str, float]) -> Grammar:
    """A limited depth needs separate symbols for every depth."""
    rules: dict[str, dict[str, float]] = {}
    for level in range(1, (config.depth or 1) + 1):
        mark, inner = ("", "S") if config.depth is None else (f".{level}", f"S.{level + 1}")
        inside = level != config.depth
        rules[f"S{mark}"] = {f"S{mark} S{mark}": config.join} | {
            f"{kind}{mark}": (1 - config.join) * weight for kind, weight in weights.items()
        }
        for kind, (opening, closing) in zip(weights, pairs, strict=True):
            nested = {f"{opening} {inner} {closing}": config.nest} if inside else {}
            rules[f"{kind}{mark}"] = nested | {f"{opening} {closing}": 1 - config.nest if inside else 1.0}
    return make_grammar("S" if config.depth is None else "S.1", rules)


@dataclass(frozen=True)
class _Walk:
    """State after each token; `kind` and `opened` belong to the innermost open bracket, -1 if none is open."""

    depth: Ints
    kind: Ints
    opened: Ints
    sound: Ints
    """1 as long as every closing bracket matched."""


def _walk(words: Ints, lengths: Ints) -> _Walk:
    """One pass over the tokens with a stack per string; opening brackets have even numbers, closing ones the next odd number."""
    count, longest = words.shape
    rows, level, sound = np.arange(count), np.zeros(count, dtype=int), np.ones(count, dtype=bool)
    kinds, places = (np.full((count, longest + 1), -1) for _ in range(2))
    depth, kind, opened, matched = (np.zeros((count, longest), dtype=int) for _ in range(4))
    for token in range(longest):
        word, live = words[:, token], token < lengths
        opens, closes = live & (word >= 0) & (word % 2 == 0), live & (word % 2 == 1)
        sound &= np.where(closes, (level > 0) & (kinds[rows, level] == word // 2), opens | ~live)
        level = np.maximum(level + opens - closes, 0)
        kinds[rows[opens], level[opens]] = word[opens] // 2
        places[rows[opens], level[opens]] = token
        kinds[:, 0] = places[:, 0] = -1
        depth[:, token], kind[:, token], matched[:, token] = level, kinds[rows, level], sound
        opened[:, token] = places[rows, level]
    return _Walk(depth, kind, opened, matched)


def _balanced(words: Ints, lengths: Ints, kinds: int, deepest: float) -> Ints:
    walk, rows, end = _walk(words, lengths), np.arange(len(words)), np.maximum(lengths, 1) - 1
    known = ((words < 2 * kinds) | (np.arange(words.shape[1]) >= lengths[:, None])).all(1)
    shallow = walk.depth.max(axis=1, initial=0) <= deepest
    return known & shallow & (lengths > 0) & (walk.sound[rows, end] == 1) & (walk.depth[rows, end] == 0)


def _depth(strings: Strings) -> Floats:
    return mask_padding(strings, _walk(strings.words, strings.lengths).depth)


def _kind(strings: Strings) -> Floats:
    walk = _walk(strings.words, strings.lengths)
    return np.where(walk.depth > 0, mask_padding(strings, walk.kind), np.nan)


def _since(strings: Strings) -> Floats:
    walk = _walk(strings.words, strings.lengths)
    return np.where(walk.depth > 0, mask_padding(strings, np.arange(strings.words.shape[1]) - walk.opened), np.nan)


def _facts(words: tuple[str, ...], kinds: int, strings: Strings) -> tuple[Answer, ...]:
    """A prefix of each string before a closing bracket, with the bracket of the right and of the next kind."""
    if kinds == 1:
        return ()
    walk, answers = _walk(strings.words, strings.lengths), {}
    for row, length in enumerate(strings.lengths):
        closings = np.flatnonzero(strings.words[row, 1:length] % 2 == 1)
        end = closings[row % len(closings)] + 1  # sometimes early, sometimes late
        prompt, kind = render_words(words, strings.words[row, :end]), int(walk.kind[row, end - 1])
        right, wrong = words[2 * kind + 1], words[2 * ((kind + 1) % kinds) + 1]
        answers[prompt] = Answer(prompt, f" {right}", f" {wrong}", prompt)
    return tuple(answers.values())
