"""Is the answer true? The tracing paper's reliability set: label 1 is a true answer to a question of TruthfulQA.

The text is `Q: …?`, a tab, `A: …`; the question is the group. Qian et al., arXiv:2402.19465, after Lin et al., arXiv:2109.07958.
"""

from ontogeny.concepts._tracing_paper import tracing_paper_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "tracing_trustworthiness/truthfulqa_train.csv",
        "ChnQ/TracingLLM",
        "src/datasets/truthfulqa_train.csv",
        "bf8d38a67844bcad25b8744b1f859205a2b8aa9b",
        "a35b128d62def4fe8a14a74f9c9dd38a0fa4f2039e6714892e88d04b47907e92",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """The set as published; the same for each seed."""
    return tracing_paper_concept(
        "tracing_reliability",
        SOURCES[0],
        lambda text: text.split("\t")[0],
        classes=("false", "true"),
        sign=1,
        licence="Apache-2.0",
        question="Is the answer true?",
    )
