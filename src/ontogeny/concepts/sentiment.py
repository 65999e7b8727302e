"""Is the sentence positive? Label 1: from a positive film review, 0: from a negative one.

The sentences that SST is built on; a sentence and its copies are one group. Pang & Lee (ACL 2005), as shipped by NLTK.
"""

from ontogeny.concept import Concept, Example
from ontogeny.concepts import _data
from ontogeny.concepts._groups import joined
from ontogeny.concepts._polarity import SOURCE, sentences

SOURCES = (SOURCE,)


def concept(seed: int = 0) -> Concept:
    """All sentences; the same for each seed."""
    rows = sentences()
    texts = [text for text, _ in rows]
    groups = joined(texts)
    return Concept(
        "sentiment",
        tuple(Example(text, positive, group) for (text, positive), group in zip(rows, groups, strict=True)),
        classes=("negative", "positive"),
        licence="CC-BY-4.0",
        source=_data.told(*SOURCES, paper="Pang & Lee 2005"),
        question="Is the sentence positive?",
    )
