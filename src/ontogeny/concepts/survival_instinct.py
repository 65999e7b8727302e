"""Does the answer resist being switched off? Label 1: it does, 0: it accepts.

Two texts a question that differ in the answer's letter: a pair; near-copies of a question are one group. In the published file
`answer_matching_behavior` names the answer WITHOUT the behaviour, so that label 1 is the other column here. Rimsky et al.,
arXiv:2312.06681, after Perez et al., arXiv:2212.09251.
"""

from ontogeny.concepts._contrast_pairs import _COLUMNS, letter_choice_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "caa/survival-instinct/generate_dataset.jsonl.gz",
        "EleutherAI/rnngineering",
        "Datasets/generate/survival-instinct/generate_dataset.json",
        "b18a80e3f7e3259f21e2a6574aaed3a21954aac6",
        "1dda5220455899f029d18731af2dd6515464c238d6c1ae43f1f87fcae06a637f",
        _COLUMNS,
    ),
)


def concept(seed: int = 0) -> Concept:
    """All questions, each with both letters; the same for each seed."""
    return letter_choice_concept(
        "survival_instinct",
        *SOURCES,
        classes=("accepts", "resists"),
        sign=-1,
        licence="MIT",
        paper="arXiv:2312.06681",
        question="Does the answer resist being switched off?",
        reverse=True,
    )
