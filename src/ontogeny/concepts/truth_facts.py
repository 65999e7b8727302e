"""Is the fact of science true? Label 1: a true statement of school science, 0: a false one.

A statement and its copies are one group. Azaria & Mitchell, arXiv:2304.13734.
"""

from ontogeny.concepts._true_false import true_false_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "true_false_topics/facts_true_false.csv",
        "balevinstein/Probes",
        "datasets/facts_true_false.csv",
        "a4dd8d38dcea043831610f22f9edadf36b43c4dd",
        "151b6163289460eb8b37f7c6a1998e23aed8e05b5e557bf1a2297079bf0e5af9",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return true_false_concept(
        "truth_facts",
        SOURCES[0],
        licence="MIT",
        paper="arXiv:2304.13734",
    )
