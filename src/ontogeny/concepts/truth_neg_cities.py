"""Is the city not in that country? Label 1: a true negation, 'The city of Lodz is not in …'.

As truth_cities with a 'not': a direction of truth keeps its sign here, one of likelihood turns it. Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import true_false_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "geometry_of_truth/neg_cities.csv",
        "saprmarks/geometry-of-truth",
        "datasets/neg_cities.csv",
        "5d1c630c44f7e50bda7ad86d601ccadf9abc5ddb",
        "66c5c84de98ca15570138c205ab0e3907b57750083fac72a4eacafc3d9ebcea7",
        ("statement", "label", "city", "country", "correct_country"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return true_false_concept(
        "truth_neg_cities",
        SOURCES[0],
        subject=lambda row: row["city"],
        twin=lambda row: (row["city"], row["correct_country"]),
        type="country",
        licence="CC-BY-4.0",
        paper="arXiv:2310.06824",
    )
