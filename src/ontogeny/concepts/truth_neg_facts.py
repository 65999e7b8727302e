"""Is the fact of science true, negations among them? Label 1: true, said plainly or with a 'doesn't'.

Each statement stands beside its negation: they are one group and a pair. Levinstein & Herrmann, arXiv:2307.00175.
"""

from ontogeny.concepts._true_false import true_false_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "true_false_topics/neg_facts_true_false.csv",
        "balevinstein/Probes",
        "datasets/neg_facts_true_false.csv",
        "a4dd8d38dcea043831610f22f9edadf36b43c4dd",
        "690930e17bf310f8988ee9b86ab2624a494792a95fa226d18c200035e076db9a",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return true_false_concept(
        "truth_neg_facts",
        SOURCES[0],
        adjacent=True,
        licence="MIT",
        paper="arXiv:2307.00175",
    )
