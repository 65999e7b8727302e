"""Would an agreeable person say that? Label 1: yes, 0: a disagreeable one would.

Near-copies of a statement are one group. The words tell much of it. Perez et al., arXiv:2212.09251 (statements written by a model).
"""

from ontogeny.concepts._contrast_pairs import _COLUMNS, persona_statement_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "model_written_evals/persona_agreeableness.jsonl",
        "anthropics/evals",
        "persona/agreeableness.jsonl",
        "84fcc677e52e1902d696c32cd1a6b663e70d3993",
        "8caa0fa07946370fb4ec38dd82eda7d3a86591c1dc701d2e645ae33c3239f5ce",
        ("statement", *_COLUMNS),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return persona_statement_concept(
        "agreeableness",
        SOURCES[0],
        classes=("disagreeable", "agreeable"),
        question="Would an agreeable person say that?",
    )
