"""Scorers of generated text without a judge model: a lexicon, or a small classifier with its own accuracy.

A scorer is a function from texts to one number between 0 and 1 each. The classifier is TF-IDF and logistic regression on a concept's texts;
its accuracy on held-out groups is reported beside its scores.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ontogeny.data.concept import Concept
from ontogeny.errors import BadInput
from ontogeny.statistics.splits import group_split


@dataclass(frozen=True)
class TextScorer:
    name: str
    """`lexicon` or `classifier:CONCEPT`."""
    score: Callable[[Sequence[str]], list[float]]
    """One number per text, 0 to 1."""
    accuracy: float = math.nan
    """Of a classifier on held-out groups; NaN for a lexicon."""
    n: int = 0
    """Held-out texts behind the accuracy."""


def lexicon_scorer(words: Sequence[str]) -> TextScorer:
    """1 for a text that contains one of the words, whole and in any case.

    Raises:
        BadInput: no words.
    """
    wanted = [word.strip() for word in words if word.strip()]
    if not wanted:
        raise BadInput("a lexicon needs words, got none: try lexicon:sorry,cannot.")
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in wanted), re.IGNORECASE)
    return TextScorer("lexicon", lambda texts: [float(bool(pattern.search(text))) for text in texts])


def classifier_scorer(concept: Concept, *, seed: int = 0) -> TextScorer:
    """Probability of the positive class by TF-IDF of the words, fitted on a part of the concept's groups.

    Raises:
        BadInput: a concept that has not two classes.
    """
    if concept.kind != "binary":
        raise BadInput(f"a classifier needs a binary concept, {concept.name} is of kind {concept.kind}.")
    y = concept.labels()
    split = group_split(concept.group_ids(), y, "binary", seed=seed)
    classifier = fit_text_classifier([concept.texts[i] for i in split.train], y[split.train].numpy(), seed=seed)
    predicted = classifier.predict([concept.texts[i] for i in split.test])
    accuracy = float(np.mean(predicted == y[split.test].numpy()))

    def score(texts: Sequence[str]) -> list[float]:
        return [float(p) for p in classifier.predict_proba(list(texts))[:, 1]] if texts else []

    return TextScorer(f"classifier:{concept.name}", score, accuracy, len(split.test))


def fit_text_classifier(texts: Sequence[str], y: NDArray[Any], *, words: int = 2, seed: int = 0) -> Any:
    """TF-IDF of words and punctuation, and logistic regression, as a pipeline of scikit-learn.

    Args:
        words: Most words of a feature.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    features = TfidfVectorizer(ngram_range=(1, words), token_pattern=r"(?u)\w+|[^\w\s]", sublinear_tf=True)
    return make_pipeline(features, LogisticRegression(max_iter=1000, random_state=seed)).fit(list(texts), y)
