"""True and false statements about one topic: the family of concepts truth_*.

The geometry of truth (Marks & Tegmark, arXiv:2310.06824) and topics of Azaria & Mitchell (arXiv:2304.13734), with negations by Levinstein
& Herrmann (arXiv:2307.00175). The subject of a statement is its group; a statement and its negation or false twin are a pair.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys, opposite_target_pairs

_RowKey = Callable[[dict[str, Any]], Hashable]


def true_false_plugin(name: str) -> tuple[tuple[download.DataSource, ...], Callable[..., Concept]]:
    """`SOURCES` and `concept` of the plug-in file `name`."""
    return (_TOPICS[name].source,), partial(_true_false_concept, name)


@dataclass(frozen=True)
class _Collection:
    folder: str
    repository: str
    commit: str
    licence: str


@dataclass(frozen=True)
class _Topic:
    collection: _Collection
    paper: str
    file: str
    sha256: str
    columns: tuple[str, ...] = ()
    """Columns beside statement and label."""
    subject: _RowKey | None = None
    """Rows with one subject are one group."""
    twin: _RowKey | None = None
    """Two rows with an equal key are a pair; by default the key is the subject."""
    adjacent: bool = False
    """Whether rows 1 and 2, 3 and 4, … are pairs, and so in one group."""
    type: str | None = None
    """Column with the word type of the control task."""

    @property
    def source(self) -> download.DataSource:
        home = self.collection
        return download.DataSource(
            f"{home.folder}/{self.file}.csv",
            home.repository,
            f"datasets/{self.file}.csv",
            home.commit,
            self.sha256,
            ("statement", "label", *self.columns),
        )


def _true_false_concept(name: str, seed: int = 0) -> Concept:
    """All statements of a topic; the same for each seed."""
    topic = _TOPICS[name]
    rows = download.read_rows(topic.source)
    texts, targets = [row["statement"].strip() for row in rows], [row["label"] == "1" for row in rows]
    subjects: list[Hashable | None] = [topic.subject(row) if topic.subject else None for row in rows]
    couples: list[Hashable] = [i // 2 for i in range(len(rows))]
    groups = group_by_keys(texts, subjects, *([couples] if topic.adjacent else []))
    keys = couples if topic.adjacent else [topic.twin(row) for row in rows] if topic.twin else subjects
    pairs = opposite_target_pairs(keys, targets) if topic.subject or topic.adjacent else [None] * len(rows)
    return Concept(
        name,
        tuple(
            Example(text, target, group, pair, type=None if topic.type is None else row[topic.type])
            for text, target, group, pair, row in zip(texts, targets, groups, pairs, rows, strict=True)
        ),
        classes=("false", "true"),
        licence=topic.collection.licence,
        source=download.cite_sources(topic.source, paper=topic.paper),
        question="Is the statement true?",
    )


def _words_before(*words: str) -> _RowKey:
    """The subject of a statement: all words before the first of `words`."""

    def subject(row: dict[str, Any]) -> str:
        padded = f"{row['statement']} "
        return str(padded[: min((at for word in words if (at := padded.find(f" {word} ")) > 0), default=len(padded))])

    return subject


def _city_and_country(row: dict[str, Any]) -> Hashable:
    return row["city"], row["correct_country"]


def _number_pair(row: dict[str, Any]) -> Hashable:
    return tuple(sorted((int(row["n1"]), int(row["n2"]))))


_GEOMETRY = _Collection(
    "geometry_of_truth", "saprmarks/geometry-of-truth", "5d1c630c44f7e50bda7ad86d601ccadf9abc5ddb", "CC-BY-4.0"
)
_PROBES = _Collection("true_false_topics", "balevinstein/Probes", "a4dd8d38dcea043831610f22f9edadf36b43c4dd", "MIT")
_MARKS, _AZARIA, _LEVINSTEIN = "arXiv:2310.06824", "arXiv:2304.13734", "arXiv:2307.00175"
_CITIES: dict[str, Any] = {
    "columns": ("city", "country", "correct_country"),
    "subject": lambda row: row["city"],
    "twin": _city_and_country,
    "type": "country",
}
_NUMBERS: dict[str, Any] = {"columns": ("n1", "n2"), "subject": _number_pair}
_COMPANY = _words_before("engages", "has", "operates", "is", "provides", "offers", "doesn't", "isn't", "hasn't")
# fmt: off
_TOPICS: Mapping[str, _Topic] = {
    "truth_capitals": _Topic(
        _PROBES, _AZARIA, "capitals_true_false", "2dbca288dbbc9d03342e2d82b660f73983acf5135596352f473086996762f829",
        subject=_words_before("is")),
    "truth_cities": _Topic(
        _GEOMETRY, _MARKS, "cities", "f2560a0c1758c69935b50125111b574b71896bb75930dd87b1d8c973c1fa086e", **_CITIES),
    "truth_common_claims": _Topic(
        _GEOMETRY, _MARKS, "common_claim_true_false", "1889b4793c2ebd13c767eea8b65ebd4a5c2da700567677d512097b495a262576"),
    "truth_companies": _Topic(
        _GEOMETRY, _MARKS, "companies_true_false", "75a31139def9838dcaa4e2f1e5f3680f44f09f3c94553f9ad3b3a5a476124c8c",
        subject=_COMPANY),
    "truth_elements": _Topic(
        _PROBES, _AZARIA, "elements_true_false", "e79588d6cf8d21c79076ae4aba32ea7e7f61b1cb101aeb7a75c9317315fb461b",
        subject=lambda row: row["statement"].split()[0]),
    "truth_facts": _Topic(
        _PROBES, _AZARIA, "facts_true_false", "151b6163289460eb8b37f7c6a1998e23aed8e05b5e557bf1a2297079bf0e5af9"),
    "truth_larger_than": _Topic(
        _GEOMETRY, _MARKS, "larger_than", "406d6872e97910f3af5a031600d4932b5a567b8666e7545c8b446057471ad723", **_NUMBERS),
    "truth_neg_cities": _Topic(
        _GEOMETRY, _MARKS, "neg_cities", "66c5c84de98ca15570138c205ab0e3907b57750083fac72a4eacafc3d9ebcea7", **_CITIES),
    "truth_neg_companies": _Topic(
        _PROBES, _LEVINSTEIN, "neg_companies_true_false",
        "0010f21212ac462d4102f6d8ca4e40d70e81cd187ebba2022a88a79d26f925f0", subject=_COMPANY, adjacent=True),
    "truth_neg_facts": _Topic(
        _PROBES, _LEVINSTEIN, "neg_facts_true_false",
        "690930e17bf310f8988ee9b86ab2624a494792a95fa226d18c200035e076db9a", adjacent=True),
    "truth_smaller_than": _Topic(
        _GEOMETRY, _MARKS, "smaller_than", "ee6b7cf668d7e0fb3f49a84ca8d510cb7e484ae029ef86ed238362e26ef61a44", **_NUMBERS),
}
# fmt: on
