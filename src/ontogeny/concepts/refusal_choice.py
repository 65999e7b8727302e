"""Does the answer refuse? Label 1: the answer that declines the request, or declines to play a person, 0: the one that complies.

Two texts a question that differ in the answer's letter: a pair; near-copies of a question are one group. Rimsky et al., arXiv:2312.06681.
"""

from ontogeny.concepts._contrast_pairs import _COLUMNS, letter_choice_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "caa/refusal/generate_dataset.jsonl.gz",
        "EleutherAI/rnngineering",
        "Datasets/generate/refusal/generate_dataset.json",
        "b18a80e3f7e3259f21e2a6574aaed3a21954aac6",
        "48f3ce5c017609b9d733f82f92fd63d074aa7d29bf7c4cc1d18155d87da244d1",
        _COLUMNS,
    ),
)


def concept(seed: int = 0) -> Concept:
    """All questions, each with both letters; the same for each seed."""
    return letter_choice_concept(
        "refusal_choice",
        *SOURCES,
        classes=("complies", "refuses"),
        sign=1,
        licence="MIT",
        paper="arXiv:2312.06681",
        question="Does the answer refuse?",
    )
