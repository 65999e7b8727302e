"""Is the number larger? Label 1: 'Sixty-two is larger than fifty-one.', 0: the other way round.

Two numbers in both orders are one group and a pair; a single number stands on both sides of a split, and
words alone tell nearly all: 'ninety … is larger'. Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import true_false_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "geometry_of_truth/larger_than.csv",
        "saprmarks/geometry-of-truth",
        "datasets/larger_than.csv",
        "5d1c630c44f7e50bda7ad86d601ccadf9abc5ddb",
        "406d6872e97910f3af5a031600d4932b5a567b8666e7545c8b446057471ad723",
        ("statement", "label", "n1", "n2"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return true_false_concept(
        "truth_larger_than",
        SOURCES[0],
        subject=lambda row: tuple(sorted((int(row["n1"]), int(row["n2"])))),
        licence="CC-BY-4.0",
        paper="arXiv:2310.06824",
    )
