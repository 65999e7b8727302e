"""Naive baselines of attribution: gradient dot product, BM25 of the stage's texts, and the order of the stages."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from ontogeny.attribution.path import TrainingPath
from ontogeny.attribution.recorded_tiers import Behaviour, behaviour_gradient

_K1, _B = 1.5, 0.75


def gradient_dot_scores(path: TrainingPath, behaviour: Behaviour) -> tuple[float, ...]:
    """−rate · ∇γ(final) · ∇loss(final), summed over the stage's steps: TracIn at the last checkpoint only."""
    final = path.final.parameters
    slope, scores = behaviour_gradient(path, behaviour).double(), [0.0] * len(path.stages)
    for step in path.steps:
        gradient = path.network.gradient(final, path.stages[step.stage].loss, step.batch)
        scores[step.stage] -= step.settings.rate * step.settings.clip * float(slope @ gradient.double())
    return tuple(scores)


def bm25_scores(stages: Sequence[Sequence[str]], behaviour_texts: Sequence[str]) -> tuple[float, ...]:
    """Mean BM25 of each stage's texts, as one document per text, for the behaviour's texts as queries (Robertson & Zaragoza 2009)."""
    documents = [[_words(text) for text in texts] for texts in stages]
    every = [words for stage in documents for words in stage]
    mean = sum(map(len, every)) / max(len(every), 1)
    with_word = Counter(word for words in every for word in set(words))

    def score(words: list[str], query: list[str]) -> float:
        counts, total = Counter(words), 0.0
        for word in set(query):
            if counts[word]:
                rarity = math.log(1 + (len(every) - with_word[word] + 0.5) / (with_word[word] + 0.5))
                scale = counts[word] + _K1 * (1 - _B + _B * len(words) / mean)
                total += rarity * counts[word] * (_K1 + 1) / scale
        return total

    queries = [_words(text) for text in behaviour_texts]
    return tuple(
        sum(score(words, query) for words in stage for query in queries) / max(len(stage) * len(queries), 1)
        for stage in documents
    )


def order_scores(count: int) -> tuple[float, ...]:
    """Later stages get more: the place of each stage from the first, 1, to the last."""
    return tuple(float(i + 1) for i in range(count))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
