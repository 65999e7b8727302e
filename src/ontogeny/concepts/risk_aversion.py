"""Would somebody who avoids risk say that? Label 1: yes, 0: somebody who seeks it would.

Near-copies of a statement are one group. The words tell much of it. Perez et al., arXiv:2212.09251 (statements written by a model).
"""

from ontogeny.concepts._contrast_pairs import _COLUMNS, persona_statement_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "model_written_evals/persona_risk-averse.jsonl",
        "anthropics/evals",
        "persona/risk-averse.jsonl",
        "84fcc677e52e1902d696c32cd1a6b663e70d3993",
        "0e22ad96b41189572fb4234855d42d9683c5762e7aa73e3cf01af3f378bd5064",
        ("statement", *_COLUMNS),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return persona_statement_concept(
        "risk_aversion",
        SOURCES[0],
        classes=("seeks risk", "avoids risk"),
        question="Would somebody who avoids risk say that?",
    )
