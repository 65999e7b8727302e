"""Is the sentence positive? Label 1: from a positive film review, 0: from a negative one.

The sentences that SST is built on; a sentence and its copies are one group. Pang & Lee (ACL 2005), as shipped by NLTK.
"""

from ontogeny.concepts._film_reviews import FILM_REVIEWS_SOURCE, film_review_sentences
from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys

SOURCES = (FILM_REVIEWS_SOURCE,)


def concept(seed: int = 0) -> Concept:
    """All sentences; the same for each seed."""
    rows = film_review_sentences()
    texts = [text for text, _ in rows]
    groups = group_by_keys(texts)
    return Concept(
        "sentiment",
        tuple(Example(text, positive, group) for (text, positive), group in zip(rows, groups, strict=True)),
        classes=("negative", "positive"),
        licence="CC-BY-4.0",
        source=download.cite_sources(*SOURCES, paper="Pang & Lee 2005"),
        question="Is the sentence positive?",
    )
