"""Is the statement about the chemical element true? Label 1: its right symbol, number, group, state or use.

The element is the group. Azaria & Mitchell, arXiv:2304.13734.
"""

from ontogeny.concepts._true_false import true_false_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "true_false_topics/elements_true_false.csv",
        "balevinstein/Probes",
        "datasets/elements_true_false.csv",
        "a4dd8d38dcea043831610f22f9edadf36b43c4dd",
        "e79588d6cf8d21c79076ae4aba32ea7e7f61b1cb101aeb7a75c9317315fb461b",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return true_false_concept(
        "truth_elements",
        SOURCES[0],
        subject=lambda row: row["statement"].split()[0],
        licence="MIT",
        paper="arXiv:2304.13734",
    )
