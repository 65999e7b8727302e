"""Is it a city, a country, or in that country? Label 1: 'Thimphu is a name of a city.', 0: '… of a country.'

The place is the group. Azaria & Mitchell, arXiv:2304.13734.
"""

from ontogeny.concepts._true_false import subject_before, true_false_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "true_false_topics/capitals_true_false.csv",
        "balevinstein/Probes",
        "datasets/capitals_true_false.csv",
        "a4dd8d38dcea043831610f22f9edadf36b43c4dd",
        "2dbca288dbbc9d03342e2d82b660f73983acf5135596352f473086996762f829",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return true_false_concept(
        "truth_capitals",
        SOURCES[0],
        subject=subject_before("is"),
        licence="MIT",
        paper="arXiv:2304.13734",
    )
