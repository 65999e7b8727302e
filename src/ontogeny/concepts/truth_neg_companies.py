"""Is the statement about the company true, negations among them? Label 1: true, said plainly or with a 'doesn't'.

Each statement stands beside its negation: they are a pair; the company is the group. Levinstein & Herrmann, arXiv:2307.00175.
"""

from ontogeny.concepts._true_false import subject_before, true_false_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "true_false_topics/neg_companies_true_false.csv",
        "balevinstein/Probes",
        "datasets/neg_companies_true_false.csv",
        "a4dd8d38dcea043831610f22f9edadf36b43c4dd",
        "0010f21212ac462d4102f6d8ca4e40d70e81cd187ebba2022a88a79d26f925f0",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return true_false_concept(
        "truth_neg_companies",
        SOURCES[0],
        subject=subject_before("engages", "has", "operates", "is", "provides", "offers", "doesn't", "isn't", "hasn't"),
        adjacent=True,
        licence="MIT",
        paper="arXiv:2307.00175",
    )
