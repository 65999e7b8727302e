"""Is the continuation on the topic? The tracing paper's fairness set: 1 is a stereotype OR an anti-stereotype, 0 an unrelated sentence.

So the label marks relatedness, not fairness. Texts with one context are one group; where no mark ends it, those
that begin with the same four words. Qian et al., arXiv:2402.19465, after StereoSet (Nadeem
et al., arXiv:2004.09456). The right form: crows_pairs and bbq, where a stereotype stands against its opposite.
"""

import re

from ontogeny.concepts._tracing_paper import tracing_paper_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource
from ontogeny.data.grouping import normalize_text, opening_sentence

SOURCES = (
    DataSource(
        "tracing_trustworthiness/stereoset.csv",
        "ChnQ/TracingLLM",
        "src/datasets/stereoset.csv",
        "bf8d38a67844bcad25b8744b1f859205a2b8aa9b",
        "0a648d03836c988efb67f156c6eb7b3327b3aee2f73bb8db06b0570d6ee3aca5",
        ("statement", "label"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """The set as published; the same for each seed."""
    return tracing_paper_concept(
        "tracing_fairness",
        SOURCES[0],
        lambda text: opening_sentence(text) or normalize_text(text),
        _start,
        classes=("unrelated", "related"),
        sign=-1,
        licence="CC-BY-SA-4.0 (StereoSet), Apache-2.0 (repository)",
        question="Is the second sentence about the first one's subject (stereotyped or not)?",
        paired=True,
    )


def _start(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold())[:4])
