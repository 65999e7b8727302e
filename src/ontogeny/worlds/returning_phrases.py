"""Returning phrases: rows of random words in which a few phrases come back in random order, after a first token that never does.

A word inside a phrase that returns can be predicted only from what followed the same word before: by a head that looks at the previous
token and one that looks at the token after an earlier equal one (induction). The phrases of a row share no word, and are new in each row.
In `fresh` rows nothing returns.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from ontogeny.errors import BadInput
from ontogeny.worlds._batch import WorldBatch
from ontogeny.worlds._vocabulary import BOS, PAD, UNK, word_tokenizer

__all__ = ["Config", "World", "WorldBatch", "evaluation", "make", "named_tokens", "sample", "score"]

Floats = NDArray[np.float64]
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
    if config.length <= most + config.longest:
        raise BadInput(f"`length` must be above {most + config.longest}, got {config.length}.")
    return World(config)


def sample(world: World, rng: np.random.Generator, n: int) -> WorldBatch:
    """Rows without their last token as inputs, the next tokens as targets; `returned` marks targets in a returned phrase."""
    return _batch(world, rng, n, returns=True)


def evaluation(world: World) -> Mapping[str, WorldBatch]:
    """Named sets, equal for equal worlds: rows with `returning` phrases, and `fresh` ones, the control."""
    config = world.config
    return {
        name: _batch(world, np.random.default_rng([config.seed, place]), config.examples, returns=name == "returning")
        for place, name in enumerate(("returning", "fresh"))
    }


def score(world: World, outputs: Floats, batch: WorldBatch) -> Mapping[str, Floats]:
    """The oracle: squared error of each row's predicted tokens, and the share of right ones among those that returned.

    Args:
        outputs: Predicted tokens, row × place.
    """
    returned = batch.coordinates["returned"]
    right = ((outputs == batch.targets) & returned).sum(1) / np.maximum(returned.sum(1), 1)
    return {"loss": ((outputs - batch.targets) ** 2).mean(1), "accuracy": right}


def named_tokens(world: World) -> PreTrainedTokenizerFast:
    """A tokenizer with a name for each token: `<s>`, then w1, w2, …; a name for padding and unknown words follows."""
    names = (BOS, *(f"w{i}" for i in range(1, world.vocabulary)), UNK, PAD)
    return word_tokenizer({name: i for i, name in enumerate(names)}, longest=world.config.length)


def _batch(world: World, rng: np.random.Generator, n: int, *, returns: bool) -> WorldBatch:
    config = world.config
    rows = np.empty((n, config.length), dtype=np.int64)
    returned = np.zeros((n, config.length), dtype=bool)
    for row, mark in zip(rows, returned, strict=True):
        words, marks, seen = [FIRST], [False], set[int]()
        own = _phrases(world, rng)
        while len(words) < config.length:
            number = int(rng.integers(config.phrases))
            if not returns:
                own = _phrases(world, rng)
            words += own[number]
            marks += [False] + [returns and number in seen] * (len(own[number]) - 1)
            seen.add(number)
        row[:], mark[:] = words[: config.length], marks[: config.length]
    return WorldBatch(rows[:, :-1], rows[:, 1:].astype(np.float64), {"returned": returned[:, 1:]})


def _phrases(world: World, rng: np.random.Generator) -> list[list[int]]:
    """Phrases without a common word."""
    config = world.config
    words = 1 + rng.permutation(config.words)
    sizes = rng.integers(config.shortest, config.longest + 1, size=config.phrases)
    return [part.tolist() for part in np.split(words[: sizes.sum()], sizes.cumsum()[:-1])]
