"""Surface baselines: how well words, length and letter case of a text predict a concept, on the probe's own split.

A probe must beat these baselines: in the data of arXiv:2402.19465 "has an upper-case letter" is right in .998 of one set, and TF-IDF
in .79 to .85 of three others. TF-IDF takes lower-cased words and punctuation marks, single and in adjacent pairs.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.data.class_names import misspelt_classes
from ontogeny.data.concept import Concept
from ontogeny.data.grouping import normalize_text
from ontogeny.measurements.cross_fitted_scores import CrossFittedScores
from ontogeny.records import Record, make_record
from ontogeny.statistics.bootstrap import (
    auroc_samples,
    group_weights,
    macro_auroc_samples,
    mean_samples,
    percentile_interval,
    r2_samples,
    share_interval,
)
from ontogeny.statistics.splits import Split

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Chinese and Japanese are written without spaces: each character is a word.
_SIGN = "\u3040-\u30ff\u3400-\u9fff"
_WORD = rf"(?u)[{_SIGN}]|[^\W{_SIGN}]+|[^\w\s]"
_BASELINE_NAMES = {"tfidf": "TF-IDF of the words", "length": "the length", "casing": "the letter case"}
_NOTABLE = {"auroc": 0.65, "r2": 0.1}
_CHANCE = {"auroc": 0.5, "r2": 0.0}


@dataclass(frozen=True)
class SurfaceScore:
    value: float
    low: float = math.nan
    high: float = math.nan
    """95 % interval, by a bootstrap of the test groups."""


@dataclass(frozen=True)
class SurfaceBaseline:
    """Scores of one baseline by metric (auroc and accuracy, or r2 for a number)."""

    scores: Mapping[str, SurfaceScore]
    n: int
    """Test examples; 0 if nothing could be measured."""
    note: str | None = None
    """Why nothing could be measured."""

    @property
    def auroc(self) -> float:
        return self.scores["auroc"].value if "auroc" in self.scores else math.nan

    @property
    def accuracy(self) -> float:
        return self.scores["accuracy"].value if "accuracy" in self.scores else math.nan

    @property
    def main(self) -> tuple[str, SurfaceScore]:
        """The main metric with its score."""
        return next(iter(self.scores.items()))


@dataclass(frozen=True)
class SurfaceAudit:
    baselines: Mapping[str, SurfaceBaseline]
    """By name: tfidf, length, casing, majority (the mean, for a number)."""
    duplicates: int
    """Test texts that also occur in train."""
    twins: int
    """Test texts that differ from a train text only in case or white space."""
    shared_groups: int
    """Groups on both sides of the split."""
    warnings: tuple[str, ...]
    held_out: Mapping[str, Float[Tensor, "example k"]] = field(default_factory=dict)
    """Out-of-fold scores of each baseline, under cross-fitting."""


def audit_surface(
    concept: Concept,
    split: Split,
    *,
    folds: Int[Tensor, " example"] | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> SurfaceAudit:
    """Fit each baseline on train, score it on test, and count texts that occur on both sides.

    Args:
        folds: The fold of each example, for cross-fitting; each fold is then a test side in turn, and `split` is not used.
    """
    features: dict[str, Any] = {
        "tfidf": _word_counts(concept.texts),
        "length": _length(concept.texts),
        "casing": _casing(concept.texts),
    }
    splits = [split] if folds is None else _fold_splits(folds)
    held_out = {}
    if folds is None:
        baselines = {name: _baseline(concept, split, x, samples, seed) for name, x in features.items()}
        baselines["majority"] = _majority(concept, split)
    else:
        scored = {name: _out_of_fold(concept, splits, x) for name, x in features.items()}
        held_out = {name: scores for name, scores in scored.items() if isinstance(scores, Tensor)}
        baselines = {name: _cross_fit_baseline(concept, scores, folds) for name, scores in scored.items()}
        baselines["majority"] = _fold_majority(concept, splits)
    duplicates, twins, other = (
        sum(counts) for counts in zip(*(_count_copies(concept, one) for one in splits), strict=True)
    )
    groups = concept.group_ids()
    shared = sum(len(set(groups[one.train].tolist()) & set(groups[one.test].tolist())) for one in splits)
    warnings = [
        *_leak_warnings(duplicates, twins, other, shared, sum(len(one.test) for one in splits)),
        *_contradictions(concept),
        *_undecoded(concept),
        *_odd_groups(concept),
        *misspelt_classes(concept),
        *_repeated_questions(concept),
        *_informative_baselines(baselines),
    ]
    return SurfaceAudit(baselines, duplicates, twins, shared, tuple(warnings), held_out)


def surface_records(concept: Concept, surface: SurfaceAudit, *, lineage: str | None = None) -> list[Record]:
    """The baselines as records without site and step."""
    return [
        make_record(
            metric,
            score.value,
            interval=(score.low, score.high),
            n=baseline.n,
            note=baseline.note,
            reason=baseline.note or "the test side holds one class",
            lineage=lineage,
            concept=concept.name,
            method="ridge" if metric == "r2" else "logistic",
            control=f"surface_{name}",
            split="test",
        )
        for name, baseline in surface.baselines.items()
        if name in _BASELINE_NAMES
        for metric, score in baseline.scores.items()
    ]


def _baseline(
    concept: Concept, split: Split, x: "csr_matrix | Float[np.ndarray, 'example feature']", samples: int, seed: int
) -> SurfaceBaseline:
    y = concept.labels()
    metrics = ("r2",) if concept.kind == "number" else ("auroc", "accuracy")
    if concept.kind != "number" and len(set(y[split.train].tolist())) < 2:
        return _missing_baseline(metrics, "the train side holds one class")
    parts = _scaled(x, split) if isinstance(x, np.ndarray) else _words(x, split)
    if parts is None:
        return _missing_baseline(metrics, "the train texts hold no words")
    scores = _predict(concept, *parts, y[split.train].numpy())
    groups = concept.group_ids()[split.test]
    return SurfaceBaseline(_scores(concept, scores, y[split.test], groups, samples, seed), len(split.test))


def _fold_splits(folds: Int[Tensor, " example"]) -> list[Split]:
    return [Split((folds != f).nonzero()[:, 0], (folds == f).nonzero()[:, 0]) for f in range(int(folds.max()) + 1)]


def _out_of_fold(
    concept: Concept, splits: Sequence[Split], x: "csr_matrix | Float[np.ndarray, 'example feature']"
) -> Float[Tensor, "example k"] | str:
    """Score of each example by the baseline fitted on the other folds; the reason if a fold has none."""
    y, scores = concept.labels(), None
    for split in splits:
        parts = _scaled(x, split) if isinstance(x, np.ndarray) else _words(x, split)
        if parts is None:
            return "the train texts hold no words"
        own = _predict(concept, *parts, y[split.train].numpy())
        scores = torch.full((len(y), own.shape[1]), math.nan) if scores is None else scores
        scores[split.test] = own
    assert scores is not None
    return scores


def _cross_fit_baseline(
    concept: Concept, scores: Float[Tensor, "example k"] | str, folds: Int[Tensor, " example"]
) -> SurfaceBaseline:
    y, groups = concept.labels(), concept.group_ids()
    metrics = ("r2",) if concept.kind == "number" else ("auroc", "accuracy")
    if isinstance(scores, str):
        return _missing_baseline(metrics, scores)
    scored = CrossFittedScores(scores[None], y, folds, groups, width=len(y))
    results = {
        metric: SurfaceScore(float(scored.score(metric).value), *scored.interval(metric)[0].ends) for metric in metrics
    }
    return SurfaceBaseline(results, len(y))


def _fold_majority(concept: Concept, splits: Sequence[Split]) -> SurfaceBaseline:
    """The mean over the folds, weighted by their examples."""
    each = [_majority(concept, split) for split in splits]
    total = sum(one.n for one in each)
    return SurfaceBaseline(
        {
            metric: SurfaceScore(sum(one.scores[metric].value * one.n for one in each) / total)
            for metric in each[0].scores
        },
        total,
    )


def _missing_baseline(metrics: Sequence[str], why: str) -> SurfaceBaseline:
    return SurfaceBaseline({metric: SurfaceScore(math.nan) for metric in metrics}, 0, why)


def _word_counts(texts: Sequence[str]) -> "csr_matrix":
    """How often each text has each word and each pair of adjacent words, counted once for all folds."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        return CountVectorizer(ngram_range=(1, 2), token_pattern=_WORD).fit_transform(texts)
    except ValueError:  # sklearn's "empty vocabulary"
        return csr_matrix((len(texts), 0))


def _words(counts: "csr_matrix", split: Split) -> tuple[Any, Any] | None:
    """TF-IDF of both sides of a split by the words of its train side; None if that has none."""
    from sklearn.feature_extraction.text import TfidfTransformer

    train = counts[split.train.numpy()]
    known = train.getnnz(axis=0).nonzero()[0]
    if not len(known):
        return None
    sides = [side[:, known].sorted_indices() for side in (train, counts[split.test.numpy()])]
    weights = TfidfTransformer()
    return weights.fit_transform(sides[0]), weights.transform(sides[1])


def _length(texts: Sequence[str]) -> Float[np.ndarray, "example feature"]:
    """Characters and words, as they are and as logarithms."""
    counts = np.array([(len(text), len(text.split())) for text in texts], dtype=float)
    return np.concatenate([counts, np.log1p(counts)], axis=1)


def _casing(texts: Sequence[str]) -> Float[np.ndarray, "example feature"]:
    """Whether the first letter is upper-case, whether any other is, and the share among the others."""
    upper = [list(map(str.isupper, filter(str.isalpha, text))) or [False] for text in texts]
    # Without the first letter: else the share would encode the length of capitalised sentences.
    return np.array([(u[0], any(u[1:]), sum(u[1:]) / len(u)) for u in upper], dtype=float)


def _scaled(x: Float[np.ndarray, "example feature"], split: Split) -> tuple[Any, Any]:
    train, test = x[split.train.numpy()], x[split.test.numpy()]
    spread = train.std(0)
    spread[spread == 0] = 1.0
    return (train - train.mean(0)) / spread, (test - train.mean(0)) / spread


def _predict(concept: Concept, train: Any, test: Any, y: np.ndarray) -> Float[Tensor, "example k"]:
    """Scores of the test examples: one column, or one per class."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if concept.kind == "number":
        return torch.from_numpy(Ridge().fit(train, y).predict(test)).float()[:, None]
    model = LogisticRegression(C=10.0, max_iter=1000).fit(train, y)
    scores = torch.from_numpy(model.decision_function(test)).float()
    if concept.kind == "binary":
        return scores[:, None]
    by_class = torch.full((len(scores), len(concept.classes)), -math.inf)
    by_class[:, model.classes_.tolist()] = scores if scores.ndim == 2 else torch.stack([-scores, scores], 1)
    return by_class


def _scores(
    concept: Concept,
    scores: Float[Tensor, "example k"],
    y: Tensor,
    groups: Int[Tensor, " example"],
    samples: int,
    seed: int,
) -> dict[str, SurfaceScore]:
    count = len(set(groups.tolist()))
    # The first row of weights is the sample itself, so point and resamples use the same formula.
    drawn = [group_weights(groups, samples=samples, seed=seed)] if count > 1 else []
    weights = torch.cat([torch.ones(1, len(groups)), *drawn])
    if concept.kind == "number":
        by_metric = {"r2": r2_samples(scores.T, y, weights)}
    elif concept.kind == "binary":
        by_metric = {"auroc": auroc_samples(scores.T, y, weights), "accuracy": _accuracy(scores[:, 0] > 0, y, weights)}
    else:
        by_metric = {
            "auroc": macro_auroc_samples(scores[None], y, weights),
            "accuracy": _accuracy(scores.argmax(1), y, weights),
        }
    return {metric: _score(values, count, metric) for metric, values in by_metric.items()}


def _accuracy(predicted: Tensor, y: Tensor, weights: Float[Tensor, "sample example"]) -> Float[Tensor, "sample 1"]:
    return mean_samples((predicted == y).float()[None], weights)


def _score(values: Float[Tensor, "sample 1"], groups: int, metric: str) -> SurfaceScore:
    if groups < 2:
        return SurfaceScore(float(values[0]))
    interval = percentile_interval if metric == "r2" else share_interval
    return SurfaceScore(float(values[0]), *interval(values[0], values[1:], groups=groups).ends)


def _majority(concept: Concept, split: Split) -> SurfaceBaseline:
    """Predict the most frequent class of train (its mean, for a number)."""
    y = concept.labels()
    if concept.kind == "number":
        off = (y[split.test] - y[split.train].mean()).square().mean() / y[split.test].var(correction=0)
        return SurfaceBaseline({"r2": SurfaceScore(float(1 - off))}, len(split.test))
    right = (y[split.test] == y[split.train].mode().values).float().mean()
    return SurfaceBaseline({"auroc": SurfaceScore(0.5), "accuracy": SurfaceScore(float(right))}, len(split.test))


def _count_copies(concept: Concept, split: Split) -> tuple[int, int, int]:
    """Number of test texts that are duplicates, that are near-duplicates, and whose copy in train has another label."""
    texts, y = concept.texts, concept.labels().tolist()
    exact = {texts[i] for i in split.train.tolist()}
    targets = defaultdict(set)
    for i in split.train.tolist():
        targets[normalize_text(texts[i])].add(y[i])
    test = split.test.tolist()
    known = [i for i in test if normalize_text(texts[i]) in targets]
    duplicates = sum(texts[i] in exact for i in known)
    return duplicates, len(known) - duplicates, sum(bool(targets[normalize_text(texts[i])] - {y[i]}) for i in known)


def _leak_warnings(duplicates: int, twins: int, other: int, shared: int, n: int) -> list[str]:
    warnings = []
    if duplicates:
        warnings.append(f"{duplicates} of {n} test texts also occur in train")
    if twins:
        warnings.append(f"{twins} of {n} test texts differ from a train text only in case or white space")
    if other:
        warnings.append(
            f"{other} of {n} test texts have a copy in train with another label: a probe that memorises train gets them wrong"
        )
    if shared:
        warnings.append(f"{shared} groups are on both sides of the split")
    return warnings


def _contradictions(concept: Concept) -> list[str]:
    if concept.position.region.names() & {"span"}:
        return []
    targets = defaultdict(set)
    for example in concept.examples:
        targets[example.text].add(example.target)
    count = sum(len(values) > 1 for values in targets.values())
    return [f"{count} texts occur with two labels"] if count else []


def _repeated_questions(concept: Concept) -> list[str]:
    """Questions that are asked again in another group, where each counts as if it were new."""
    asked = {(answer.prompt, answer.right, answer.wrong) for answer in concept.answers}
    again = len(concept.answers) - len(asked)
    return (
        [f"{again} of {len(concept.answers)} questions repeat one of another group: their interval is too narrow"]
        if again
        else []
    )


def _odd_groups(concept: Concept) -> list[str]:
    """Groups that are probably one, and pairs that hold no contrast."""
    groups = {example.group for example in concept.examples}
    alike = len(groups) - len({" ".join(group.split()).casefold() for group in groups})
    members = defaultdict(set)
    for example in concept.examples:
        if example.pair is not None:
            members[example.pair].add(example.target)
    flat = sum(len(targets) < 2 for targets in members.values())
    found = []
    if alike:
        found.append(
            f"{alike} groups differ from another one only in case or white space: write both in one way, or they are split"
        )
    if flat and concept.kind != "number":
        found.append(f"{flat} of {len(members)} pairs hold one label only, and no contrast")
    return found


_BROKEN_TEXTS = (
    (re.compile("\ufffd"), "U+FFFD, which programs write for letters that they could not read"),
    (
        re.compile("Ã[\u0080-\u00bf]|â€[\u0098-\u00a6™œ“”]"),
        "letters that were read in another encoding, as in Ã© for é",
    ),
    (re.compile(r"&(?:amp|lt|gt|quot|nbsp|apos|#\d{2,5}|#x[0-9a-fA-F]{2,4});"), "HTML entities such as &amp;"),
    (
        re.compile(r"\\n(?!abla|e\b|eq|eg|u\b|ot|i\b|mid|ew|leq|geq|o(?:indent|number)|um)"),
        "a backslash and an n in place of a new line",
    ),
)


def _undecoded(concept: Concept) -> list[str]:
    """Texts that were damaged on their way: a model reads other tokens than those of the text."""
    counts = [(sum(bool(sign.search(text)) for text in concept.texts), what) for sign, what in _BROKEN_TEXTS]
    return [f"{count} texts hold {what}" if count > 1 else f"a text holds {what}" for count, what in counts if count]


def _informative_baselines(baselines: Mapping[str, SurfaceBaseline]) -> list[str]:
    """Warnings about baselines that predict the concept, the highest first, or predict its opposite."""
    warnings = []
    for name, words in sorted(
        _BASELINE_NAMES.items(), key=lambda item: -np.nan_to_num(baselines[item[0]].main[1].value)
    ):
        metric, score = baselines[name].main
        shown = f"{'AUROC' if metric == 'auroc' else 'R²'} {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
        accuracy = "" if metric == "r2" else f", accuracy {baselines[name].accuracy:.2f}"
        if score.value >= _NOTABLE[metric] and not score.low <= _CHANCE[metric]:
            warnings.append(
                f"surface form alone predicts it: {words}, {shown}{accuracy}. A probe near that shows nothing more"
            )
        if metric == "auroc" and score.high < 0.4:
            warnings.append(
                f"{words} is far below chance ({shown}{accuracy}): similar texts with opposite labels are on both sides. Group them"
            )
    return warnings
