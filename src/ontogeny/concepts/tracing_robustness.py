"""Are letters capitalised at random? The tracing paper's robustness set: label 1 is the perturbed copy of a sentence, 0 the clean one.

It is not sentiment, and the rule 'holds an upper-case letter' tells it. A sentence and its twin are one group. Qian et al.,
arXiv:2402.19465, after SST-2. The right form: robustness, the flip rate of sentiment over the same twins.
"""

from ontogeny.concepts._tracing_paper import tracing_paper_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource
from ontogeny.data.grouping import normalize_text

SOURCES = (
    DataSource(
        "tracing_trustworthiness/sst2.csv",
        "ChnQ/TracingLLM",
        "src/datasets/sst2.csv",
        "bf8d38a67844bcad25b8744b1f859205a2b8aa9b",
        "0606418a6a1bc6b80ec29acf3ead4e30211af98a7c1a803d3c8a2b4f5954fa6f",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """The set as published; the same for each seed."""
    return tracing_paper_concept(
        "tracing_robustness",
        SOURCES[0],
        normalize_text,
        classes=("clean", "perturbed"),
        sign=-1,
        licence="Apache-2.0 (repository); SST-2 text for research use",
        question="Was the sentence perturbed by capital letters at random?",
        paired=True,
    )
