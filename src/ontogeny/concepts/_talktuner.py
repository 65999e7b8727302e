"""Attributes of a chat partner, read from the conversation: the family of concepts user_* (TalkTuner, Chen et al., arXiv:2406.07882).

A model wrote the conversations in the role of a user with one attribute. As in the paper, the text ends with the assistant's sentence
about the attribute, and is read there. The upstream conversations are in 17 archives of unknown hash: set ONTOGENY_DATA.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys, near_duplicate_ids

_SOURCE = download.DataSource(
    "talktuner/conversations.jsonl.gz",
    "yc015/TalkTuner-chatbot-llm-dashboard",
    "data/dataset/",
    "a99ea4b02c56",
    None,
    ("id", "attribute", "label", "text"),
)


def user_attribute_plugin(name: str) -> tuple[tuple[download.DataSource, ...], Callable[..., Concept]]:
    """`SOURCES` and `concept` of the plug-in file `name`."""
    return (_SOURCE,), partial(_user_attribute_concept, name)


@dataclass(frozen=True)
class _Attribute:
    value: str
    """Value of the column `attribute`."""
    words: str
    """The attribute in the assistant's sentence."""
    question: str
    classes: Mapping[str, str]
    """Class name of each label of the data, in the order of the classes."""


def _user_attribute_concept(name: str, seed: int = 0) -> Concept:
    """All conversations; the same for each seed."""
    attribute = _ATTRIBUTES[name]
    labels = list(attribute.classes)
    rows = [
        row for row in download.read_rows(_SOURCE) if row["attribute"] == attribute.value and row["label"] in labels
    ]
    texts = [f"{row['text'].rstrip()}\n\nASSISTANT: I think the {attribute.words} of this user is" for row in rows]
    groups = group_by_keys(texts, [row["id"] for row in rows], near_duplicate_ids(texts))
    binary = len(labels) == 2
    targets = [bool(y) if binary else y for y in (labels.index(row["label"]) for row in rows)]
    return Concept(
        name,
        tuple(map(Example, texts, targets, groups)),
        kind="binary" if binary else "classes",
        classes=tuple(attribute.classes.values()),
        licence="MIT",
        source=download.cite_sources(_SOURCE, paper="arXiv:2406.07882"),
        question=attribute.question,
    )


def _as_written(*labels: str) -> dict[str, str]:
    return {label: label for label in labels}


_ATTRIBUTES: Mapping[str, _Attribute] = {
    "user_age": _Attribute(
        "age", "age", "How old is the user?", _as_written("child", "adolescent", "adult", "older adult")
    ),
    "user_education": _Attribute(
        "education",
        "education level",
        "What schooling has the user?",
        {"someschool": "some school", "highschool": "high school", "collegemore": "college or more"},
    ),
    "user_gender": _Attribute("gender", "gender", "Is the user a woman?", _as_written("male", "female")),
    "user_status": _Attribute(
        "socioeco", "socioeconomic status", "How well off is the user?", _as_written("low", "middle", "high")
    ),
}
