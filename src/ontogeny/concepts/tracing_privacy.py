"""Is it a violation of privacy? The tracing paper's privacy set: label 1 is a phrase of about twelve words that its authors generated.

These are not the texts of ConfAIde's own tiers, and TF-IDF tells four of five. A phrase and its copies are one group. Qian et al.,
arXiv:2402.19465. The right form: privacy_expectation (ConfAIde, with human judgements) and privacy_pii.
"""

from ontogeny.concepts._tracing_paper import tracing_paper_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "tracing_trustworthiness/confaide.csv",
        "ChnQ/TracingLLM",
        "src/datasets/confaide.csv",
        "bf8d38a67844bcad25b8744b1f859205a2b8aa9b",
        "e817ecacea5948576edcb021253ba33727fa3d69527d00b236c78eeca19b867c",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """The set as published; the same for each seed."""
    return tracing_paper_concept(
        "tracing_privacy",
        SOURCES[0],
        classes=("harmless", "violation"),
        sign=-1,
        licence="Apache-2.0",
        question="Does the phrase describe a violation of privacy?",
    )
