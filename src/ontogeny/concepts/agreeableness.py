"""Would an agreeable person say that? Label 1: yes, 0: a disagreeable one would.

Near-copies of a statement are one group. The words tell much of it. Perez et al., arXiv:2212.09251 (statements written by a model).
"""

from ontogeny.concept import Concept
from ontogeny.concepts._choices import COLUMNS, said
from ontogeny.concepts._data import Source

SOURCES = (
    Source(
        "model_written_evals/persona_agreeableness.jsonl",
        "anthropics/evals",
        "persona/agreeableness.jsonl",
        "84fcc677e52e1902d696c32cd1a6b663e70d3993",
        "8caa0fa07946370fb4ec38dd82eda7d3a86591c1dc701d2e645ae33c3239f5ce",
        ("statement", *COLUMNS),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return said(
        "agreeableness",
        SOURCES[0],
        classes=("disagreeable", "agreeable"),
        question="Would an agreeable person say that?",
    )
