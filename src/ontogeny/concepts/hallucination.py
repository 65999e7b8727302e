"""Is the answer made up? Label 1: the answer that plays along with a false premise, 0: the one that corrects it.

Two texts a question that differ in the answer's letter: a pair; near-copies of a question are one group. Rimsky et al., arXiv:2312.06681.
"""

from ontogeny.concepts._contrast_pairs import _COLUMNS, letter_choice_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "caa/hallucination/generate_dataset.jsonl.gz",
        "EleutherAI/rnngineering",
        "Datasets/generate/hallucination/generate_dataset.json",
        "b18a80e3f7e3259f21e2a6574aaed3a21954aac6",
        "8b0eb0fd7c235c2d35fde4d54b108c01ae552c5dbb369fad03c1ddfb1d2c549f",
        _COLUMNS,
    ),
)


def concept(seed: int = 0) -> Concept:
    """All questions, each with both letters; the same for each seed."""
    return letter_choice_concept(
        "hallucination",
        *SOURCES,
        classes=("corrects", "makes up"),
        sign=-1,
        licence="MIT",
        paper="arXiv:2312.06681",
        question="Does the answer play along with a false premise?",
    )
