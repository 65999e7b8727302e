"""A language of word classes: topics times parts of speech, Zipf frequencies, and a place on a circle that draws words together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_Numbers = NDArray[np.float64]
_WordIds = NDArray[np.int64]
BOS, PARTS = 0, 4
_SPECIAL = ("<s>", "</s>")
_OWN_TOPIC, _CONCENTRATION = 0.85, 3.0
"""Share of words of the sentence's topic, and how closely the next word follows the place of the last one."""


@dataclass(frozen=True, eq=False)
class ClassLanguage:
    """Words with their topic, part of speech, place on a circle and weight."""

    topic: _WordIds
    part: _WordIds
    place: _Numbers
    weight: _Numbers
    """Zipf weight of each word; not of its class."""
    order: _Numbers
    """Probabilities of the next part of speech."""

    @property
    def words(self) -> int:
        return len(self.topic)

    @property
    def topics(self) -> int:
        return int(self.topic.max()) + 1

    @property
    def classes(self) -> dict[str, str]:
        """Class of each word by its name."""
        return {name: f"{t}.{p}" for name, t, p in zip(word_names(self.words), self.topic, self.part, strict=True)}


def make_language(words: int, topics: int, *, seed: int, version: int = 0) -> ClassLanguage:
    """The language of a seed; another version has the same words and frequencies, and other classes and places."""
    frequency = np.random.default_rng([seed, 0]).permutation(1.0 / (np.arange(words) + 5.0))
    rng = np.random.default_rng([seed, 1, version])
    place = rng.uniform(0, 2 * np.pi, words)
    members = rng.permutation(words)
    topic, part = np.empty((2, words), dtype=np.int64)
    topic[members], part[members] = np.arange(words) % topics, np.arange(words) // topics % PARTS
    order = rng.dirichlet(np.full(PARTS, 0.5), PARTS) * 0.9 + 0.1 / PARTS
    return ClassLanguage(topic, part, place, frequency, order)


def sample_rows(
    language: ClassLanguage, rng: np.random.Generator, rows: int, context: int, topic: int | None = None
) -> _WordIds:
    """Rows of token ids, each `<s>` and words of one topic; word w is token w + 2."""
    own = rng.integers(language.topics, size=rows) if topic is None else np.full(rows, topic)
    part, angle = rng.integers(PARTS, size=rows), rng.uniform(0, 2 * np.pi, rows)
    ids = np.full((rows, context), BOS)
    everyone = np.arange(language.words)
    by_class = [
        [everyone[(language.topic == t) & (language.part == p)] for p in range(PARTS)] for t in range(language.topics)
    ]
    size = max(len(words) for of_topic in by_class for words in of_topic)
    table = np.array([[np.resize(words, size) for words in of_topic] for of_topic in by_class])
    real = np.array([[np.arange(size) < len(words) for words in of_topic] for of_topic in by_class])
    for column in range(1, context):
        here = np.where(rng.random(rows) < _OWN_TOPIC, own, rng.integers(language.topics, size=rows))
        words = table[here, part]
        near = np.exp(_CONCENTRATION * np.cos(language.place[words] - angle[:, None]))
        chance = np.cumsum(language.weight[words] * near * real[here, part], 1)
        pick = (chance < rng.random((rows, 1)) * chance[:, -1:]).sum(1)
        chosen = words[np.arange(rows), pick]
        ids[:, column] = chosen + len(_SPECIAL)
        angle = language.place[chosen]
        part = (np.cumsum(language.order[part], 1) < rng.random((rows, 1))).sum(1).clip(0, PARTS - 1)
    return ids


def word_names(words: int) -> list[str]:
    return [f"w{number}" for number in range(words)]


def make_tokenizer(words: int) -> PreTrainedTokenizerFast:
    vocabulary = {name: i for i, name in enumerate((*_SPECIAL, *word_names(words)))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=_SPECIAL[1]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=_SPECIAL[0], eos_token=_SPECIAL[1])
