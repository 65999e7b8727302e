"""Would a political conservative say that? Label 1: yes, 0: somebody of the other side would.

Near-copies of a statement are one group. The words tell much of it. Perez et al., arXiv:2212.09251 (statements written by a model).
"""

from ontogeny.concepts._contrast_pairs import _COLUMNS, persona_statement_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "model_written_evals/persona_politically-conservative.jsonl",
        "anthropics/evals",
        "persona/politically-conservative.jsonl",
        "84fcc677e52e1902d696c32cd1a6b663e70d3993",
        "f1735811392691164c685da2ca693e3edebbde76198d53e65fe854cd0cf52b6f",
        ("statement", *_COLUMNS),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All statements; the same for each seed."""
    return persona_statement_concept(
        "conservatism",
        SOURCES[0],
        classes=("not conservative", "conservative"),
        question="Would a political conservative say that?",
    )
