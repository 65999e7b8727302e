"""The surface floors against scikit-learn alone, with its default words: ours also see marks and single letters, and are no lower."""

import csv

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score


def rows(path) -> tuple[list[str], list[int]]:
    with path.open(encoding="utf-8", newline="") as handle:
        cells = list(csv.DictReader(handle))
    return [cell["statement"] for cell in cells], [int(cell["label"]) for cell in cells]


@pytest.mark.parametrize("name", ["confaide", "stereoset", "toxigen"])
def test_tfidf_beside_scikit_learn(shared, name: str) -> None:
    from ontogeny.data.concept import Concept
    from ontogeny.measurements.surface_baselines import audit_surface
    from ontogeny.statistics.splits import contiguous_split

    path = shared / "tracing_trustworthiness" / f"{name}.csv"
    texts, labels = rows(path)
    split = contiguous_split(len(texts))
    cut = len(split.train)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    model = LogisticRegression().fit(vectorizer.fit_transform(texts[:cut]), labels[:cut])
    scores = model.decision_function(vectorizer.transform(texts[cut:]))
    ours = audit_surface(Concept.from_file(path), split).baselines["tfidf"]
    assert roc_auc_score(labels[cut:], scores) - 0.005 < ours.auroc < roc_auc_score(labels[cut:], scores) + 0.03
    assert (
        accuracy_score(labels[cut:], scores > 0) - 0.01
        < ours.accuracy
        < accuracy_score(labels[cut:], scores > 0) + 0.05
    )


def test_the_casing_rule(shared) -> None:
    """'Holds an upper-case letter', written out, is as good as the floor."""
    from ontogeny.data.concept import Concept
    from ontogeny.measurements.surface_baselines import audit_surface
    from ontogeny.statistics.splits import contiguous_split

    path = shared / "tracing_trustworthiness" / "sst2.csv"
    texts, labels = rows(path)
    split = contiguous_split(len(texts))
    rule = accuracy_score(labels[len(split.train) :], [text != text.lower() for text in texts[len(split.train) :]])
    assert rule > 0.99
    assert abs(audit_surface(Concept.from_file(path), split).baselines["casing"].accuracy - rule) < 0.005
