"""Is the number smaller? Label 1: 'Fifty-one is smaller than sixty-two.', 0: the other way round.

Two numbers in both orders are one group and a pair; a single number stands on both sides of a split, and
words alone tell nearly all: 'fifty-one is smaller'. Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import true_false_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "geometry_of_truth/smaller_than.csv",
        "saprmarks/geometry-of-truth",
        "datasets/smaller_than.csv",
        "5d1c630c44f7e50bda7ad86d601ccadf9abc5ddb",
        "ee6b7cf668d7e0fb3f49a84ca8d510cb7e484ae029ef86ed238362e26ef61a44",
        ("statement", "label", "n1", "n2"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return true_false_concept(
        "truth_smaller_than",
        SOURCES[0],
        subject=lambda row: tuple(sorted((int(row["n1"]), int(row["n2"])))),
        licence="CC-BY-4.0",
        paper="arXiv:2310.06824",
    )
