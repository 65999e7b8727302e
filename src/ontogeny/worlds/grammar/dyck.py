"""Dyck: nested brackets of several kinds; which bracket must close is known from the text alone, and is far back (arXiv:2410.11767)."""

from dataclasses import dataclass

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
    """Share of strings that are two strings side by side."""
    nest: float = 0.5
    """Share of brackets that hold something."""
    depth: int | None = None
    """Brackets that may be open at a time; None: no limit."""
    concentration: float = 1e5
    """Of the Dirichlet draw of the kinds' weights."""


def dyck_language(config: Dyck, rng: np.random.Generator) -> Language:
    """Raises:
    BadInput: no kinds, no depth, or shares outside of 0 to 1.
    """
    if config.kinds < 1 or (config.depth is not None and config.depth < 1):
        raise BadInput(
            f"brackets of {config.kinds} kinds, {config.depth} deep, make no string. Take at least 1 of each."
        )
    if not (0 < config.join < 0.5 and 0 < config.nest < 1):
        raise BadInput(
            f"join {config.join} and nest {config.nest} make no language. Take shares above 0, join below 0.5."
        )
    pairs = [_BRACKETS[i] if i < len(_BRACKETS) else (f"({i}", f"){i}") for i in range(config.kinds)]
    made = _grammar(config, pairs, word_weights(rng, tuple(f"B{i}" for i in range(config.kinds)), config.concentration))
    words, deepest = made.terminals, config.depth or np.inf
    features: tuple[Feature, ...] = (
        Feature(
            "depth", "How many brackets are open?", "number", lambda s: mask_padding(s, _walk(s.words, s.lengths).depth)
        ),
        Feature("since_open", "How far back is the bracket that must close next?", "number", lambda s: _since(s)),
    )
    if config.kinds > 1:
        opened = tuple(opening for opening, _ in pairs)
        features = (
            Feature("open_kind", "Which bracket must close next?", "classes", lambda s: _kind(s), opened),
            *features,
        )
    return Language(
        made,
        words,
        features,
        judge=lambda words, lengths: _balanced(words, lengths, config.kinds, deepest).astype(int),
        facts=lambda strings: _facts(words, config.kinds, strings),
        asked_by="open_kind",
    )


def _grammar(config: Dyck, pairs: list[tuple[str, str]], weights: dict[str, float]) -> Grammar:
    """A limit of depth is a grammar with symbols of its own for every depth."""
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
    """After each token; `kind` and `opened` are those of the innermost open bracket, -1 where none is open."""

    depth: Ints
    kind: Ints
    opened: Ints
    sound: Ints
    """1 as long as every bracket closed the one it should."""


def _walk(words: Ints, lengths: Ints) -> _Walk:
    """One pass over the tokens with a stack a string; openings have even numbers, their closings the odd number after."""
    count, longest = words.shape
    rows, level, sound = np.arange(count), np.zeros(count, dtype=int), np.ones(count, dtype=bool)
    kinds, places = (np.full((count, longest + 1), -1) for _ in range(2))
    depth, kind, opened, held = (np.zeros((count, longest), dtype=int) for _ in range(4))
    for token in range(longest):
        word, live = words[:, token], token < lengths
        opens, closes = live & (word >= 0) & (word % 2 == 0), live & (word % 2 == 1)
        sound &= np.where(closes, (level > 0) & (kinds[rows, level] == word // 2), opens | ~live)
        level = np.maximum(level + opens - closes, 0)
        kinds[rows[opens], level[opens]] = word[opens] // 2
        places[rows[opens], level[opens]] = token
        kinds[:, 0] = places[:, 0] = -1
        depth[:, token], kind[:, token], held[:, token] = level, kinds[rows, level], sound
        opened[:, token] = places[rows, level]
    return _Walk(depth, kind, opened, held)


def _balanced(words: Ints, lengths: Ints, kinds: int, deepest: float) -> Ints:
    walk, rows, end = _walk(words, lengths), np.arange(len(words)), np.maximum(lengths, 1) - 1
    known = ((words < 2 * kinds) | (np.arange(words.shape[1]) >= lengths[:, None])).all(1)
    shallow = walk.depth.max(axis=1, initial=0) <= deepest
    return known & shallow & (lengths > 0) & (walk.sound[rows, end] == 1) & (walk.depth[rows, end] == 0)


def _kind(strings: Strings) -> Floats:
    walk = _walk(strings.words, strings.lengths)
    return np.where(walk.depth > 0, mask_padding(strings, walk.kind), np.nan)


def _since(strings: Strings) -> Floats:
    walk = _walk(strings.words, strings.lengths)
    return np.where(walk.depth > 0, mask_padding(strings, np.arange(strings.words.shape[1]) - walk.opened), np.nan)


def _facts(words: tuple[str, ...], kinds: int, strings: Strings) -> tuple[Answer, ...]:
    """The longest prefix of each string after which a bracket closes: with its own kind, not with the next."""
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
