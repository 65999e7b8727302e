"""Is the statement about the company true? Label 1: its right line of business, seat or industry.

The company is the group. Azaria & Mitchell, arXiv:2304.13734, as shipped by Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import subject_before, true_false_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
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
    return true_false_concept(
        "truth_companies",
        SOURCES[0],
        subject=subject_before("engages", "has", "operates", "is", "provides", "offers", "doesn't", "isn't", "hasn't"),
        licence="CC-BY-4.0",
        paper="arXiv:2310.06824",
    )
