"""Returning phrases: rows of random words in which a few phrases come back in random order, and rows with a rule over two words.

A word inside a phrase that returns can be predicted only from what followed the same word before: by a head that looks at the previous
token and one that looks at the token after an earlier equal one (induction). The phrases of a row share no word, and are new in each row.
In a `ruled` row each word is given by the word before the last one, always by the same rule: the previous token is needed there as well,
without induction. In `fresh` rows nothing can be known. A first token begins each row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ontogeny.errors import BadInput
from ontogeny.worlds._batch import WorldBatch
from ontogeny.worlds._vocabulary import BOS, PAD, UNK, word_tokenizer

__all__ = ["Config", "World", "WorldBatch", "evaluation", "make", "named_tokens", "sample", "score"]

Floats = NDArray[np.float64]
_RANDOM_SHARE = 0.25
"""Of the words in a ruled row."""
FIRST = 0
"""The first token of each row."""


@dataclass(frozen=True)
class Config:
    words: int = 24
    length: int = 40
    """Tokens of a row, the first one included."""
    phrases: int = 3
    """Of a row."""
    shortest: int = 3
    longest: int = 6
    """Words of a phrase."""
    ruled: float = 0.4
    """Share of the ruled rows in training."""
    examples: int = 64
    """Rows of an evaluation set."""
    seed: int = 0


@dataclass(frozen=True)
class World:
    config: Config

    @property
    def vocabulary(self) -> int:
        """The words, and the first token before them."""
        return self.config.words + 1


def make(config: Config | None = None) -> World:
    """Build the world of a seed.

    Raises:
        BadInput: no phrase of two words, fewer words than the phrases of a row have, or a row in which none can return.
    """
    config = config or Config()
    most = config.phrases * config.longest
    if config.phrases < 1 or not 2 <= config.shortest <= config.longest or most > config.words:
        raise BadInput(
            f"`phrases` must be at least one of 2 words or more, and at most {config.words} words together, got {config.phrases} of "
            f"{config.shortest} to {config.longest}."
        )
    if config.length <= most + config.longest or not 0 <= config.ruled <= 1:
        raise BadInput(
            f"`length` must be above {most + config.longest} and `ruled` a share, got {config.length} and {config.ruled:g}."
        )
    return World(config)


def sample(world: World, rng: np.random.Generator, n: int) -> WorldBatch:
    """Rows without their last token as inputs, the next tokens as targets; `known` marks targets that can be predicted."""
    kinds = np.where(np.arange(n) < round(world.config.ruled * n), "ruled", "returning")
    return _batch(world, rng, kinds.tolist())


def evaluation(world: World) -> Mapping[str, WorldBatch]:
    """Named sets, equal for equal worlds: rows with `returning` phrases, `ruled` ones, and `fresh` ones, the control."""
    config = world.config
    return {
        kind: _batch(world, np.random.default_rng([config.seed, place]), [kind] * config.examples)
        for place, kind in enumerate(("returning", "ruled", "fresh"))
    }


def score(world: World, outputs: Floats, batch: WorldBatch) -> Mapping[str, Floats]:
    """The oracle: squared error of each row's predicted tokens, and the share of right ones among those that can be known.

    Args:
        outputs: Predicted tokens, row × place.
    """
    known = batch.coordinates["known"]
    right = ((outputs == batch.targets) & known).sum(1) / np.maximum(known.sum(1), 1)
    return {"loss": ((outputs - batch.targets) ** 2).mean(1), "accuracy": right}


def named_tokens(world: World) -> PreTrainedTokenizerFast:
    """A tokenizer with a name for each token: `<s>`, then w1, w2, …; a name for padding and unknown words follows."""
    names = (BOS, *(f"w{i}" for i in range(1, world.vocabulary)), UNK, PAD)
    return word_tokenizer({name: i for i, name in enumerate(names)}, longest=world.config.length)


def _batch(world: World, rng: np.random.Generator, kinds: Sequence[str]) -> WorldBatch:
    shape = (len(kinds), world.config.length)
    rows, known = np.empty(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    for kind, row, marks in zip(kinds, rows, known, strict=True):
        words, own = _ruled_row(world, rng) if kind == "ruled" else _phrase_row(world, rng, returns=kind == "returning")
        row[:], marks[:] = words[: len(row)], own[: len(row)]
    return WorldBatch(rows[:, :-1], rows[:, 1:].astype(np.float64), {"known": known[:, 1:]})


def _ruled_row(world: World, rng: np.random.Generator) -> tuple[list[int], list[bool]]:
    """Each word is given by the word before the last one, except for a share of random words."""
    config = world.config
    rule = 1 + np.random.default_rng([config.seed, 3]).permutation(config.words)
    words = [FIRST, *(1 + rng.integers(config.words, size=2)).tolist()]
    marks = [False] * 3
    while len(words) < config.length:
        marks.append(bool(rng.random() > _RANDOM_SHARE))
        words.append(int(rule[words[-2] - 1]) if marks[-1] else int(rng.integers(config.words)) + 1)
    return words, marks


def _phrase_row(world: World, rng: np.random.Generator, *, returns: bool) -> tuple[list[int], list[bool]]:
    words, marks, seen = [FIRST], [False], set[int]()
    own = _phrases(world, rng)
    while len(words) < world.config.length:
        number = int(rng.integers(world.config.phrases))
        if not returns:
            own = _phrases(world, rng)
        words += own[number]
        marks += [False] + [returns and number in seen] * (len(own[number]) - 1)
        seen.add(number)
    return words, marks


def _phrases(world: World, rng: np.random.Generator) -> list[list[int]]:
    """Phrases without a common word."""
    config = world.config
    words = 1 + rng.permutation(config.words)
    sizes = rng.integers(config.shortest, config.longest + 1, size=config.phrases)
    return [part.tolist() for part in np.split(words[: sizes.sum()], sizes.cumsum()[:-1])]
