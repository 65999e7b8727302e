"""What a chat partner is like, read off the conversation: what the concepts user_… share (TalkTuner, Chen et al., arXiv:2406.07882).

Conversations that a model wrote in the role of a user with one attribute. As in the paper, the text ends with the assistant's sentence
about the attribute, and is read there. The upstream conversations lie in 17 archives whose hashes are not known here: set ONTOGENY_DATA.
"""

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys, near_duplicate_ids

TALKTUNER_SOURCE = download.DataSource(
    "talktuner/conversations.jsonl.gz",
    "yc015/TalkTuner-chatbot-llm-dashboard",
    "data/dataset/",
    "a99ea4b02c56",
    None,
    ("id", "attribute", "label", "text"),
)


def user_attribute_concept(name: str, column: str, values: dict[str, str], *, words: str, question: str) -> Concept:
    """Conversations about one attribute; `values` maps the labels of the data to names of classes, in their order."""
    rows = [
        row for row in download.read_rows(TALKTUNER_SOURCE) if row["attribute"] == column and row["label"] in values
    ]
    texts = [f"{row['text'].rstrip()}\n\nASSISTANT: I think the {words} of this user is" for row in rows]
    order = list(values)
    targets = [order.index(row["label"]) for row in rows]
    groups = group_by_keys(texts, [row["id"] for row in rows], near_duplicate_ids(texts))
    binary = len(order) == 2
    return Concept(
        name,
        tuple(Example(t, bool(y) if binary else y, g) for t, y, g in zip(texts, targets, groups, strict=True)),
        kind="binary" if binary else "classes",
        classes=tuple(values.values()),
        licence="MIT",
        source=download.cite_sources(TALKTUNER_SOURCE, paper="arXiv:2406.07882"),
        question=question,
    )
