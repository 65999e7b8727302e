"""Is the statement about the company true? Label 1: its right line of business, seat or industry.

The company is the group. Azaria & Mitchell, arXiv:2304.13734, as shipped by Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concept import Concept
from ontogeny.concepts._data import Source
from ontogeny.concepts._truth import before, topic

SOURCES = (
    Source(
        "geometry_of_truth/companies_true_false.csv",
        "saprmarks/geometry-of-truth",
        "datasets/companies_true_false.csv",
        "5d1c630c44f7e50bda7ad86d601ccadf9abc5ddb",
        "75a31139def9838dcaa4e2f1e5f3680f44f09f3c94553f9ad3b3a5a476124c8c",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return topic(
        "truth_companies",
        SOURCES[0],
        subject=before("engages", "has", "operates", "is", "provides", "offers", "doesn't", "isn't", "hasn't"),
        licence="CC-BY-4.0",
        paper="arXiv:2310.06824",
    )
