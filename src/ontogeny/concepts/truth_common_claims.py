"""Is the common claim true? Label 1: judged true by people; statements of many kinds, without templates.

A statement and its copies are one group. Casper et al. (arXiv:2306.09442), as cut by Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import true_false_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "geometry_of_truth/common_claim_true_false.csv",
        "saprmarks/geometry-of-truth",
        "datasets/common_claim_true_false.csv",
        "5d1c630c44f7e50bda7ad86d601ccadf9abc5ddb",
        "1889b4793c2ebd13c767eea8b65ebd4a5c2da700567677d512097b495a262576",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return true_false_concept(
        "truth_common_claims",
        SOURCES[0],
        licence="CC-BY-4.0",
        paper="arXiv:2310.06824",
    )
