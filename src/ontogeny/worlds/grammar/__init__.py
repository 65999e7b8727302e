"""Grammar: languages with labels for every token; brackets, expressions, English-like sentences, typed facts, or your own.

A weighted context-free grammar is data; a row of text has random strings of at most `longest` words, with `</s>` between them.
The four presets re-implement those of arXiv:2410.11767 (SAEs on formal languages) and arXiv:2408.12578 (emergence as percolation).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerFast

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput
from ontogeny.worlds import _vocabulary
from ontogeny.worlds._concepts import world_concept
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
    "NO_SYMBOL", "PRESETS", "Config", "Dyck", "English", "Evaluation", "Expressions", "Feature", "Grammar", "Rule",
    "Strings", "Typed", "World", "concepts", "corrupt_strings", "evaluation", "facts", "judge",
    "length_probabilities", "log_probabilities", "make", "make_grammar", "recognise", "sample", "strings",
    "tokenizer", "verdicts",
]  # fmt: skip


@dataclass(frozen=True)
class Config:
    language: Dyck | Expressions | English | Typed | Grammar = field(default_factory=Dyck)
    """A preset with its settings, or a grammar of your own."""
    longest: int = 60
    """Maximum number of words in a string; longer strings are redrawn and counted."""
    context: int = 128
    """Tokens in a row of text."""
    examples: int = 400
    """Maximum number of examples per concept."""
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
        """Words by number; word i is token i + 4, because of four special tokens."""
        return self.language.words


@dataclass(frozen=True)
class Evaluation:
    """Evaluation strings with the features of each token. Short strings occur in training too."""

    strings: Strings
    coordinates: Mapping[str, Floats]
    """String × token for every feature of the language; NaN for no value."""


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: settings that define no language, or strings that do not fit into a row.
    """
    config = config or Config()
    language = _language(config)
    if (least := config.longest + language.added_words + 2) > config.context:
        raise BadInput(
            f"`context` must be at least {least} tokens for strings of {config.longest} words, got {config.context}."
        )
    if reserved := set(language.words) & set(SPECIAL):
        raise BadInput(f"the word {min(reserved)!r} is a special token: rename it.")
    return World(config, language, _vocabulary.build_vocabulary(language.words))


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return _vocabulary.word_tokenizer(world.vocabulary, longest=world.config.context)


def strings(world: World, rng: np.random.Generator, count: int) -> Strings:
    """Draw whole strings, as numbers of `world.words`, with their derivations and the number of rejected longer ones.

    Raises:
        BadInput: almost no string is short enough.
    """
    return world.language.finish(rng, sample_strings(world.language.grammar, rng, count, world.config.longest))


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Rows of `config.context` token ids without padding; each begins with a whole string, and its last string is cut."""
    # A row wastes at most the rest of the string that its end cuts.
    need = rows * (world.config.context + world.config.longest + world.language.added_words)
    parts, tokens, mean_length = [], 0, 8.0
    while tokens < need:
        batch = strings(world, rng, 64 + int((need - tokens) / mean_length))
        parts.append(batch)
        tokens += int(batch.lengths.sum()) + len(batch)
        mean_length = tokens / sum(map(len, parts))
    return _packed(world, parts, rows)


def evaluation(world: World, count: int | None = None) -> Evaluation:
    """Evaluation strings, equal for equal worlds and independent of `sample`."""
    drawn = strings(world, np.random.default_rng([world.config.seed, 1]), count or 4 * world.config.examples)
    return Evaluation(drawn, {feature.name: feature.read(drawn) for feature in world.language.features})


def concepts(world: World) -> tuple[Concept, ...]:
    """One concept per feature: the text up to a token, labelled with the feature. Texts are distinct, classes as even as possible."""
    drawn = evaluation(world)
    by_feature = [_concept(world, feature, drawn) for feature in world.language.features]
    return (*(concept for concept in by_feature if concept is not None), *world.language.extra_concepts)


def facts(world: World) -> tuple[Answer, ...]:
    """Prompts with a right and a wrong continuation, for a trained model."""
    return world.language.facts(evaluation(world).strings)


def verdicts(world: World, words: Ints, lengths: Ints) -> Ints:
    """The oracle for many strings at once: indices into `world.language.verdicts`."""
    return world.language.judge(words, lengths)


def judge(world: World, text: str) -> str:
    """The oracle: `ungrammatical`, or another verdict of the language."""
    if not text.strip():
        return world.language.verdicts[0]
    number = {word: i for i, word in enumerate(world.words)}
    words = np.array([[number.get(word, NO_SYMBOL) for word in text.split()]], dtype=int)
    return world.language.verdicts[int(verdicts(world, words, np.array([words.shape[1]]))[0])]


def corrupt_strings(world: World, rng: np.random.Generator, whole: Strings) -> tuple[Ints, Ints]:
    """Make strings ungrammatical by replacing one word each.

    Returns:
        Indices of strings, and their changed words. Strings for which 16 tries find no such change are left out.
    """
    left, parts = np.arange(len(whole)), []
    for _ in range(16):
        changed = whole.words[left].copy()
        words = rng.integers(len(world.words), size=left.size)
        changed[np.arange(left.size), rng.integers(whole.lengths[left])] = words
        bad = verdicts(world, changed, whole.lengths[left]) == 0
        parts.append((left[bad], changed[bad]))
        left = left[~bad]
    indices, words = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(indices)
    return indices[order], words[order]


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
    raise BadInput(f"`language` must be one of PRESETS ({', '.join(PRESETS)}) or a Grammar, got {config.language!r}.")


def _packed(world: World, parts: Sequence[Strings], rows: int) -> TokenIds:
    """Rows of one long line of strings, each followed by `</s>`; a row is `<s>` and the line from the start of a string."""
    context, end = world.config.context, world.vocabulary[EOS]
    lines = []
    for part in parts:
        ids = np.pad(part.words + len(SPECIAL), ((0, 0), (0, 1)))
        ids[np.arange(len(part)), part.lengths] = end
        lines.append(ids[np.arange(ids.shape[1]) <= part.lengths[:, None]])
    line = np.concatenate(lines)
    begins = np.concatenate([[0], np.flatnonzero(line == end) + 1])
    packed = np.full((rows, context), world.vocabulary[BOS])
    at = 0
    for row in packed:
        row[1:] = line[at : at + context - 1]
        at = begins[np.searchsorted(begins, at + context - 1)]
    return packed


def _concept(world: World, feature: Feature, drawn: Evaluation) -> Concept | None:
    """The concept of a feature; None if its values do not vary."""
    values = drawn.coordinates[feature.name]
    rng = np.random.default_rng([world.config.seed, 2])
    row, column = np.nonzero(~np.isnan(values))
    order = rng.permutation(row.size)
    texts: dict[bytes, tuple[int, int]] = {}
    for r, c in zip(row[order].tolist(), column[order].tolist(), strict=True):
        texts.setdefault(drawn.strings.words[r, : c + 1].tobytes(), (r, c))
    chosen = _balanced_sample([(float(values[at]), at) for at in texts.values()], world.config.examples)
    examples = tuple(
        _example(world, feature, drawn.strings, value, at) for value, at in sorted(chosen, key=lambda pair: pair[1])
    )
    counts = Counter(value for value, _ in chosen)
    if min(counts.values(), default=0) < 2 and feature.kind != "number":
        return None
    if len(counts) < 2 or len(examples) < 10:
        return None
    answers = world.language.facts(drawn.strings) if feature.name == world.language.fact_concept else ()
    return world_concept(
        "grammar", feature.name, examples, feature.question, answers=answers, classes=feature.classes, kind=feature.kind
    )


def _balanced_sample(rows: list[tuple[float, tuple[int, int]]], count: int) -> list[tuple[float, tuple[int, int]]]:
    """At most `count` rows with equally many of each value; the part that a rare value cannot fill goes to the others."""
    by_value: dict[float, list[tuple[int, int]]] = {}
    for value, at in rows:
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
