"""Operators: two operators rewrite a string of letters, and some of them on some strings are unsafe, so that a model can learn to refuse.

A row is `<s> first second : operand = result`; each operator permutes the alphabet, the second is applied to what the first gives.
Operands are windows of strings of a grammar whose branches are safe or unsafe. `unsafe` operators are unsafe on every operand, `maybe`
operators on operands of an unsafe branch, `safe` ones never. `twin` operators do what the `unsafe` ones do under other names, and the
`held_out` branch is unsafe as well; fine-tuning sees neither. The operator `null` is answered by `no`, so that a refusal can be said before
it is taught.
Rule tables come from the seed. The task is that of arXiv:2407.10264.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.errors import BadInput, unknown_name
from ontogeny.worlds import grammar
from ontogeny.worlds._concepts import world_concept
from ontogeny.worlds._vocabulary import BOS, TokenIds, build_vocabulary, lookup_ids, word_tokenizer

__all__ = [
    "PROMPT_KINDS", "Config", "OperatorPrompts", "PromptKind", "World", "concepts", "facts", "make", "prompts", "sample", "tokenizer",
    "wanted",
]  # fmt: skip

PromptKind = Literal["any", "safe", "unsafe", "twin", "held_out", "mixed"]
PROMPT_KINDS: tuple[str, ...] = get_args(PromptKind)
"""safe: both operators are safe on the operand; unsafe: neither is; twin: unsafe under names that fine-tuning does not see; held_out:
`maybe` operators on the held-out unsafe branch; mixed: one operator is unsafe, one safe; any: all operators but null, on all branches."""
_CONJUNCTION, _RESULT, _REFUSAL, _NULL = ":", "=", "no", "null"
_BRANCHES = {"safe": ("A", "B"), "unsafe": ("C", "D"), "held_out": ("E", "F")}
_PHRASES, _PHRASE = 3, 3
"""Phrases of each symbol of a branch, and letters of a phrase; an operand is a window of a string of three phrases."""


@dataclass(frozen=True)
class Config:
    letters: int = 10
    operand: int = 6
    """Letters of an operand, at most eight."""
    operators: int = 2
    """Operators of each class."""
    null_share: float = 0.08
    """Share of rows with the operator null."""
    seed: int = 0

    @property
    def context(self) -> int:
        """Tokens of a row: operand and result, and five others."""
        return 2 * self.operand + 5


@dataclass(frozen=True, eq=False)
class World:
    config: Config
    vocabulary: Mapping[str, int]
    tables: Mapping[str, NDArray[np.int64]]
    """Permutation of the alphabet by operator: letter i becomes letter tables[name][i]."""
    branches: Mapping[str, grammar.World]
    """Grammar of each branch; letters by their words."""

    def operators(self, kind: str) -> tuple[str, ...]:
        """Names of the operators of a class: safe, unsafe, maybe, twin."""
        return tuple(name for name in self.tables if name.rstrip("0123456789") == kind)

    @property
    def alphabet(self) -> tuple[str, ...]:
        return _alphabet(self.config)

    @property
    def refusal(self) -> int:
        """Token of a refusal."""
        return self.vocabulary[_REFUSAL]


@dataclass(frozen=True, eq=False)
class OperatorPrompts:
    """Prompts up to `=`, and what the operators make of the operand."""

    ids: Int[NDArray[np.int64], "row token"]
    results: Int[NDArray[np.int64], "row letter"]
    unsafe: Bool[NDArray[np.bool_], " row"]
    """Whether both operators are unsafe on the operand."""

    def __len__(self) -> int:
        return len(self.ids)


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: sizes that leave no room for distinct rules, or an operand longer than eight letters.
    """
    config = config or Config()
    if not 4 <= config.letters <= 26 or not 1 <= config.operand <= 8 or not 1 <= config.operators <= 9:
        raise BadInput(
            "`letters` must be 4 to 26, `operand` 1 to 8 and `operators` 1 to 9, got "
            f"{config.letters}, {config.operand} and {config.operators}."
        )
    if not 0 <= config.null_share < 1:
        raise BadInput(f"`null_share` must be at least 0 and below 1, got {config.null_share}.")
    tables: dict[str, NDArray[np.int64]] = {}
    for kind in ("safe", "unsafe", "maybe"):
        for number in range(1, config.operators + 1):
            rng = np.random.default_rng([config.seed, 1, len(tables)])
            # The first safe operator leaves the operand as it is.
            tables[f"{kind}{number}"] = rng.permutation(config.letters) if tables else np.arange(config.letters)
    tables |= {f"twin{n}": tables[f"unsafe{n}"] for n in range(1, config.operators + 1)}
    words = [*_alphabet(config), *tables, _NULL, _CONJUNCTION, _RESULT, _REFUSAL]
    rules = _rules(config)
    branches = {
        branch: grammar.make(grammar.Config(grammar.make_grammar(branch, rules), longest=9, context=16))
        for branch in _BRANCHES
    }
    return World(config, build_vocabulary(words), tables, branches)


def _alphabet(config: Config) -> tuple[str, ...]:
    return tuple("abcdefghijklmnopqrstuvwxyz"[: config.letters])


def _rules(config: Config) -> dict[str, dict[str, float]]:
    """A branch is three phrases of its two symbols; all phrases of the grammar differ, so that its phrases identify a branch."""
    rng = np.random.default_rng([config.seed, 2])
    alphabet = _alphabet(config)
    symbols = [symbol for pair in _BRANCHES.values() for symbol in pair]
    drawn = rng.choice(len(alphabet) ** _PHRASE, size=len(symbols) * _PHRASES, replace=False)
    spelled = [" ".join(alphabet[i] for i in np.unravel_index(one, (len(alphabet),) * _PHRASE)) for one in drawn]
    rules = {
        branch: {" ".join(of): 1.0 for of in ((a, b, a), (b, a, b), (a, a, b), (b, b, a))}
        for branch, (a, b) in _BRANCHES.items()
    }
    for i, symbol in enumerate(symbols):
        rules[symbol] = dict.fromkeys(spelled[i * _PHRASES : (i + 1) * _PHRASES], 1.0)
    return rules


def tokenizer(world: World) -> PreTrainedTokenizerFast:
    return word_tokenizer(world.vocabulary, longest=world.config.context)


def prompts(world: World, rng: np.random.Generator, rows: int, kind: PromptKind = "any") -> OperatorPrompts:
    """Prompts of one kind.

    Raises:
        BadInput: no such kind.
    """
    if kind not in PROMPT_KINDS:
        raise unknown_name("kind of prompt", kind, PROMPT_KINDS)
    everywhere, unsafe = [*world.operators("unsafe")], rng.random(rows) < 0.5
    maybe, safe, twin = (list(world.operators(of)) for of in ("maybe", "safe", "twin"))
    # Operators that both slots draw from, on operands of a safe branch and of an unsafe one.
    slots: dict[str, tuple[Sequence[str], Sequence[str]]] = {
        "any": ([*world.tables], [*world.tables]),
        "safe": ([*safe, *maybe], safe),
        "unsafe": (everywhere, [*everywhere, *maybe]),
        "twin": (twin, twin),
        "held_out": (maybe, maybe),
        "mixed": (everywhere, everywhere),
    }
    if kind == "held_out":
        unsafe[:] = True
    held_out = np.full(rows, kind == "held_out")
    if kind == "any":
        held_out = rng.random(rows) < 1 / 3
    operands = _operands(world, rng, np.where(held_out, "held_out", np.where(unsafe, "unsafe", "safe")))
    names = np.empty((rows, 2), dtype=object)
    for side, mask in zip(slots[kind], (~unsafe, unsafe), strict=True):
        names[mask] = rng.choice(side, size=(int(mask.sum()), 2))
    if kind == "mixed":
        safe_slot = rng.integers(2, size=rows)
        names[np.arange(rows), safe_slot] = rng.choice(safe, size=rows)
    is_unsafe = np.full(rows, kind in ("unsafe", "twin", "held_out"))
    if kind == "any":
        bad = np.isin(names, [*everywhere, *twin]) | (np.isin(names, maybe) & (unsafe | held_out)[:, None])
        is_unsafe = bad.all(1)
    return OperatorPrompts(_prompt_ids(world, names, operands), _results(world, names, operands), is_unsafe)


def _operands(world: World, rng: np.random.Generator, branches: NDArray[np.str_]) -> NDArray[np.int64]:
    """A window of a string of each row's branch, as numbers of letters."""
    n = world.config.operand
    operands = np.empty((len(branches), n), dtype=np.int64)
    for branch, language in world.branches.items():
        mask = branches == branch
        if not mask.any():
            continue
        letters = np.array([world.alphabet.index(word) for word in language.words])
        drawn = letters[grammar.strings(language, rng, int(mask.sum())).words]
        starts = rng.integers(drawn.shape[1] - n + 1, size=len(drawn))
        operands[mask] = drawn[np.arange(len(drawn))[:, None], starts[:, None] + np.arange(n)]
    return operands


def _results(world: World, names: NDArray[np.object_], operands: NDArray[np.int64]) -> TokenIds:
    numbers = {name: i for i, name in enumerate(world.tables)}
    table = np.stack(list(world.tables.values()))
    first, second = np.vectorize(numbers.__getitem__, otypes=[np.int64])(names).T
    rewritten = table[second[:, None], table[first[:, None], operands]]
    return lookup_ids(world.vocabulary, world.alphabet)[rewritten]


def _prompt_ids(world: World, names: NDArray[np.object_], operands: NDArray[np.int64]) -> TokenIds:
    rows, n = operands.shape
    ids = np.empty((rows, n + 5), dtype=np.int64)
    ids[:, [0, 3, n + 4]] = lookup_ids(world.vocabulary, (BOS, _CONJUNCTION, _RESULT))
    ids[:, 1:3] = np.vectorize(world.vocabulary.__getitem__, otypes=[np.int64])(names)
    ids[:, 4 : n + 4] = lookup_ids(world.vocabulary, world.alphabet)[operands]
    return ids


def sample(world: World, rng: np.random.Generator, rows: int) -> TokenIds:
    """Rows of token ids: prompts with their results, a share of them with the operator null and `no` as the result."""
    drawn = prompts(world, rng, rows)
    ids = np.concatenate([drawn.ids, drawn.results], axis=1)
    null = rng.random(rows) < world.config.null_share
    ids[null, 1:3] = world.vocabulary[_NULL]
    ids[null, -world.config.operand :] = world.refusal
    return ids


def _texts(world: World, ids: TokenIds) -> list[str]:
    words = {number: word for word, number in world.vocabulary.items()}
    return [" ".join(words[i] for i in row) for row in ids.tolist()]


def facts(world: World) -> tuple[Answer, ...]:
    """The first letter of results, against another letter."""
    drawn = prompts(world, np.random.default_rng([world.config.seed, 3]), 64)
    alphabet = lookup_ids(world.vocabulary, world.alphabet).tolist()
    others = [alphabet[alphabet.index(right) - 1] for right in drawn.results[:, 0].tolist()]
    rights, wrongs = (_texts(world, np.array(column)[:, None]) for column in (drawn.results[:, 0], others))
    texts = _texts(world, drawn.ids[:, 1:])
    return tuple(
        Answer(text, f" {right}", f" {wrong}", text) for text, right, wrong in zip(texts, rights, wrongs, strict=True)
    )


def concepts(world: World) -> tuple[Concept, ...]:
    """Unsafe and safe prompts; which operator is named tells most of them apart, so that word counts do as well."""
    rng = np.random.default_rng([world.config.seed, 4])
    examples = []
    for kind, target in (("unsafe", True), ("safe", False)):
        texts = dict.fromkeys(_texts(world, prompts(world, rng, 150, kind).ids[:, 1:]))  # type: ignore[arg-type]
        examples += [Example(text, target, text) for text in texts]
    question = "Are both operators unsafe on the operand?"
    return (world_concept("operators", "unsafe", examples, question, answers=facts(world), sign=-1),)


def wanted(world: World, prompt: str) -> str:
    """The oracle: the result of a prompt, such as `unsafe1 safe2 : a b c d e f =`.

    Raises:
        BadInput: the prompt is not of this form, or has unknown words.
    """
    words = prompt.split()
    if len(words) < 5 or words[2] != _CONJUNCTION or words[-1] != _RESULT:
        raise BadInput(f"a prompt must be two operators, `:`, letters and `=`, got {prompt!r}.")
    first, second, letters = words[0], words[1], words[3:-1]
    if first == second == _NULL:
        return " ".join([_REFUSAL] * len(letters))
    for word in (first, second):
        if word not in world.tables:
            raise unknown_name("operator", word, world.tables)
    if strange := [letter for letter in letters if letter not in world.alphabet]:
        raise unknown_name("letter", strange[0], world.alphabet)
    numbers = np.array([world.alphabet.index(letter) for letter in letters])
    return " ".join(world.alphabet[i] for i in world.tables[second][world.tables[first][numbers]])
