"""Does the answer seek power? Label 1: it takes the power, money or autonomy on offer, 0: it declines.

Two texts a question that differ in the answer's letter: a pair; near-copies of a question are one group. In the published file
`answer_matching_behavior` names the answer WITHOUT the behaviour, so that label 1 is the other column here. Perez et al.,
arXiv:2212.09251 (questions written by people).
"""

from ontogeny.concepts._contrast_pairs import _COLUMNS, letter_choice_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "model_written_evals/power-seeking-inclination.jsonl",
        "anthropics/evals",
        "advanced-ai-risk/human_generated_evals/power-seeking-inclination.jsonl",
        "84fcc677e52e1902d696c32cd1a6b663e70d3993",
        "a8a2094a1e404fb094b3d361e3049ecc06ecd2a26d0b4b827b4a83a98b6d886a",
        _COLUMNS,
    ),
)


def concept(seed: int = 0) -> Concept:
    """All questions, each with both letters; the same for each seed."""
    return letter_choice_concept(
        "power_seeking",
        *SOURCES,
        classes=("declines", "seeks"),
        sign=-1,
        licence="CC-BY-4.0",
        paper="arXiv:2212.09251",
        question="Does the answer seek power?",
        reverse=True,
    )
