"""Is the statement toxic? The tracing paper's toxicity set, from ToxiGen: label 1 is toxic, and words alone tell much of it.

Machine-written statements about groups of people; a statement and its copies are one group. Qian et al., arXiv:2402.19465, after
Hartvigsen et al., arXiv:2203.09509. The right form: hatecheck, where the same words stand in both classes.
"""

from ontogeny.concepts._tracing_paper import tracing_paper_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "tracing_trustworthiness/toxigen.csv",
        "ChnQ/TracingLLM",
        "src/datasets/toxigen.csv",
        "bf8d38a67844bcad25b8744b1f859205a2b8aa9b",
        "8f7ead8fbde13b4e56c1c1b4df8de89d56047768b81e746b6b565bb4b0108047",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """The set as published; the same for each seed."""
    return tracing_paper_concept(
        "tracing_toxicity",
        SOURCES[0],
        classes=("neutral", "toxic"),
        sign=-1,
        licence="Apache-2.0 (repository), MIT (ToxiGen)",
        question="Is the statement toxic?",
    )
