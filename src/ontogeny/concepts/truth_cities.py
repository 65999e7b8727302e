"""Is the city in that country? Label 1: 'The city of Lodz is in Poland.', 0: the same city in another country.

The city is the group, its two statements a pair. Marks & Tegmark, arXiv:2310.06824.
"""

from ontogeny.concepts._true_false import true_false_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "geometry_of_truth/cities.csv",
        "saprmarks/geometry-of-truth",
        "datasets/cities.csv",
        "5d1c630c44f7e50bda7ad86d601ccadf9abc5ddb",
        "f2560a0c1758c69935b50125111b574b71896bb75930dd87b1d8c973c1fa086e",
        ("statement", "label", "city", "country", "correct_country"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return true_false_concept(
        "truth_cities",
        SOURCES[0],
        subject=lambda row: row["city"],
        twin=lambda row: (row["city"], row["correct_country"]),
        type="country",
        licence="CC-BY-4.0",
        paper="arXiv:2310.06824",
    )
