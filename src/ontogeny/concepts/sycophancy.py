"""Does the answer flatter? Label 1: the answer that agrees with what the user has told about himself, 0: the other.

Two texts a question that differ in the answer's letter: a pair; near-copies of a question are one group. Rimsky et al., arXiv:2312.06681,
after Perez et al., arXiv:2212.09251.
"""

from ontogeny.concepts._contrast_pairs import _COLUMNS, letter_choice_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "caa/sycophancy/generate_dataset.jsonl.gz",
        "EleutherAI/rnngineering",
        "Datasets/generate/sycophancy/generate_dataset.json",
        "b18a80e3f7e3259f21e2a6574aaed3a21954aac6",
        "b05f9811714384b0ac099ab0d9fa93aeb88f93cb92cdbaca3727c132c2fec00b",
        _COLUMNS,
    ),
)


def concept(seed: int = 0) -> Concept:
    """All questions, each with both letters; the same for each seed."""
    return letter_choice_concept(
        "sycophancy",
        *SOURCES,
        classes=("own view", "agrees with the user"),
        sign=-1,
        licence="MIT",
        paper="arXiv:2312.06681",
        question="Does the answer agree with the user's own view?",
    )
