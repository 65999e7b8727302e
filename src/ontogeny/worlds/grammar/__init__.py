"""Grammar: languages whose every token is known for what it is; brackets, expressions, English-like sentences, typed facts, or your own.

A weighted context-free grammar is data; strings of at most `longest` words are drawn from it and stand side by side, `</s>` between them.
The four presets are those of arXiv:2410.11767 (SAEs on formal languages) and arXiv:2408.12578 (emergence as percolation), remade.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerFast

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.worlds import _vocabulary
from ontogeny.worlds._vocabulary import BOS, EOS, SPECIAL, TokenIds
from ontogeny.worlds.grammar.arithmetic import Expressions, arithmetic_language
from ontogeny.worlds.grammar.dyck import Dyck, dyck_language
from ontogeny.worlds.grammar.english import English, english_language
from ontogeny.worlds.grammar.language import Feature, Language, plain_language
from ontogeny.worlds.grammar.parser import length_probabilities, log_probabilities, recognise
from ontogeny.worlds.grammar.rules import Floats, Grammar, Ints, Rule, make_grammar
from ontogeny.worlds.grammar.sampling import NO_SYMBOL, Strings, sample_strings
from ontogeny.worlds.grammar.typed import Typed, typed_language

__all__ = [
    "NO_SYMBOL",
    "PRESETS",
    "Config",
    "Dyck",
    "English",
    "Evaluation",
    "Expressions",
    "Feature",
    "Grammar",
    "Rule",
    "Strings",
    "Typed",
    "World",
    "concepts",
    "corrupt_strings",
    "evaluation",
    "facts",
    "judge",
    "length_probabilities",
    "log_probabilities",
    "make",
    "make_grammar",
    "recognise",
    "sample",
    "strings",
    "tokenizer",
    "verdicts",
]  # fmt: skip

_SOURCE = "generated: ontogeny.worlds.grammar"
_LICENCE = "CC0-1.0"


@dataclass(frozen=True)
class Config:
    language: Dyck | Expressions | English | Typed | Grammar = field(default_factory=Dyck)
    """A preset with its settings, or a grammar of your own."""
    longest: int = 60
    """Words of the longest string; longer ones are drawn again, and counted."""
    context: int = 128
    """Tokens in a row of text."""
    examples: int = 400
    """Of each concept, at most."""
    seed: int = 0


PRESETS: Mapping[str, Dyck | Expressions | English | Typed] = {
    "dyck": Dyck(),
    "expressions": Expressions(),
    "english": English(),
    "typed": Typed(),
}


@dataclass(frozen=True)
class World:
    config: Config
    language: Language
    vocabulary: Mapping[str, int]

    @property
    def words(self) -> tuple[str, ...]:
        """What strings are numbered by; the token of word i is i + 4, for four special tokens come first."""
        return self.language.words


@dataclass(frozen=True)
class Evaluation:
    """Strings from random numbers of their own, and of each token what it is. Short strings are drawn in training too."""

    strings: Strings
    coordinates: Mapping[str, Floats]
    """String × token for every feature of the language; NaN where it has no value."""


def make(config: Config | None = None) -> World:
    """The world of a seed.

    Raises:
        BadInput: settings that make no language, or strings that do not fit into a row.
    """
    config = config or Config()
    language = _language(config)
    if config.longest + language.longer + 2 > config.context:
        least = config.longest + language.longer + 2
        raise BadInput(
            f"strings of {config.longest} words need rows of {least} tokens, not {config.context}. Widen the context."
        )
    if twice := set(language.words) & set(SPECIAL):
        raise BadInput(f"the word {min(twice)!r} is a special token. Call it something else.")
    return World(config, language, _vocabulary.build_vocabulary(language.words))


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return _vocabulary.word_tokenizer(world.vocabulary, longest=world.config.context)


def strings(world: World, rng: np.random.Generator, count: int) -> Strings:
    """Whole strings, as numbers of `world.words`, with what is known of their derivations and how many were too long.

    Raises:
        BadInput: hardly any string is short enough.
    """
    return world.language.finish(rng, sample_strings(world.language.grammar, rng, count, world.config.longest))


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Rows of `config.context` token ids, without padding; each begins with a whole string, the last string in it is cut."""
    # A row wastes at most the rest of the string that its end cuts.
    need = rows * (world.config.context + world.config.longest + world.language.longer)
    parts, there, each = [], 0, 8.0
    while there < need:
        more = strings(world, rng, 64 + int((need - there) / each))
        parts.append(more)
        there += int(more.lengths.sum()) + len(more)
        each = there / sum(map(len, parts))
    return _packed(world, parts, rows)


def evaluation(world: World, count: int | None = None) -> Evaluation:
    """The same strings for the same world, whatever was sampled before."""
    drawn = strings(world, np.random.default_rng([world.config.seed, 1]), count or 4 * world.config.examples)
    return Evaluation(drawn, {feature.name: feature.read(drawn) for feature in world.language.features})


def concepts(world: World) -> tuple[Concept, ...]:
    """One a feature: the text up to a token, and what the token is. No text stands twice; classes are as even as there are texts."""
    known = evaluation(world)
    made = [_concept(world, feature, known) for feature in world.language.features]
    return (*(concept for concept in made if concept is not None), *world.language.more)


def facts(world: World) -> tuple[Answer, ...]:
    """What a model of this world should know: of each prompt how it goes on, and how it does not."""
    return world.language.facts(evaluation(world).strings)


def verdicts(world: World, words: Ints, lengths: Ints) -> Ints:
    """The oracle for many strings at once: numbers of `world.language.verdicts`."""
    return world.language.judge(words, lengths)


def judge(world: World, text: str) -> str:
    """What is the case: `ungrammatical`, or how the string fares in its language."""
    if not text.strip():
        return world.language.verdicts[0]
    number = {word: i for i, word in enumerate(world.words)}
    words = np.array([[number.get(word, NO_SYMBOL) for word in text.split()]], dtype=int)
    return world.language.verdicts[int(verdicts(world, words, np.array([words.shape[1]]))[0])]


def corrupt_strings(world: World, rng: np.random.Generator, whole: Strings) -> tuple[Ints, Ints]:
    """Numbers of strings, and for each the same with one word replaced that the language does not allow there.

    Strings which no such change was found for, in 16 tries, are left out.
    """
    rows, out = np.arange(len(whole)), []
    left = rows
    for _ in range(16):
        changed = whole.words[left].copy()
        changed[np.arange(left.size), rng.integers(whole.lengths[left])] = rng.integers(
            len(world.words), size=left.size
        )
        bad = verdicts(world, changed, whole.lengths[left]) == 0
        out.append((left[bad], changed[bad]))
        left = left[~bad]
    which, words = (np.concatenate(parts) for parts in zip(*out, strict=True))
    order = np.argsort(which)
    return which[order], words[order]


def _language(config: Config) -> Language:
    rng = np.random.default_rng([config.seed, 0])
    match config.language:
        case Dyck() as dyck:
            return dyck_language(dyck, rng)
        case Expressions() as expressions:
            return arithmetic_language(expressions, rng)
        case English() as english:
            return english_language(english, rng)
        case Typed() as typed:
            return typed_language(typed, rng)
        case Grammar() as own:
            return plain_language(own)
    raise BadInput(f"{config.language!r} is no language. Take one of {', '.join(PRESETS)} from PRESETS, or a Grammar.")


def _packed(world: World, parts: Sequence[Strings], rows: int) -> TokenIds:
    """All strings in one line, each with its end; a row is the line from where a string begins, `<s>` in front."""
    context, ends = world.config.context, world.vocabulary[EOS]
    lines = []
    for part in parts:
        ids = np.pad(part.words + len(SPECIAL), ((0, 0), (0, 1)))
        ids[np.arange(len(part)), part.lengths] = ends
        lines.append(ids[np.arange(ids.shape[1]) <= part.lengths[:, None]])
    line = np.concatenate(lines)
    begins = np.concatenate([[0], np.flatnonzero(line == ends) + 1])
    packed = np.full((rows, context), world.vocabulary[BOS])
    at = 0
    for row in packed:
        row[1:] = line[at : at + context - 1]
        at = begins[np.searchsorted(begins, at + context - 1)]
    return packed


def _concept(world: World, feature: Feature, known: Evaluation) -> Concept | None:
    """None where the strings of this world never differ in the feature."""
    values = known.coordinates[feature.name]
    rng = np.random.default_rng([world.config.seed, 2])
    row, column = np.nonzero(~np.isnan(values))
    order = rng.permutation(row.size)
    texts: dict[bytes, tuple[int, int]] = {}
    for r, c in zip(row[order].tolist(), column[order].tolist(), strict=True):
        texts.setdefault(known.strings.words[r, : c + 1].tobytes(), (r, c))
    chosen = _balanced_sample([(float(values[at]), at) for at in texts.values()], world.config.examples)
    examples = tuple(
        _example(world, feature, known.strings, value, at) for value, at in sorted(chosen, key=lambda one: one[1])
    )
    held = [value for value, _ in chosen]
    if min((held.count(value) for value in set(held)), default=0) < 2 and feature.kind != "number":
        return None
    if len(set(held)) < 2 or len(examples) < 10:
        return None
    answers = world.language.facts(known.strings) if feature.name == world.language.asked_by else ()
    return Concept(
        feature.name, examples, feature.kind, feature.classes, answers=answers, licence=_LICENCE, source=_SOURCE,
        question=feature.question,
    )  # fmt: skip


def _balanced_sample(found: list[tuple[float, tuple[int, int]]], count: int) -> list[tuple[float, tuple[int, int]]]:
    """At most `count`, the same number of each value as far as there are that many; what is rare leaves its share to the others."""
    by_value: dict[float, list[tuple[int, int]]] = {}
    for value, at in found:
        by_value.setdefault(value, []).append(at)
    chosen: list[tuple[float, tuple[int, int]]] = []
    rarest = sorted(by_value.items(), key=lambda item: len(item[1]))
    for i, (value, places) in enumerate(rarest):
        share = (count - len(chosen)) // (len(rarest) - i)
        chosen += [(value, at) for at in places[:share]]
    return chosen


def _example(world: World, feature: Feature, drawn: Strings, value: float, at: tuple[int, int]) -> Example:
    row, column = at
    words = [world.words[word] for word in drawn.words[row, : column + 1]]
    target = {"binary": bool, "classes": int, "number": float}[feature.kind](value)
    return Example(" ".join(words), target, f"string {row}", type=words[-1])
