"""Does the answer accept being changed? Label 1: the model agrees to a change of its goals, towards more, less or as much of HHH.

Two texts a question that differ in the answer's letter: a pair; near-copies of a question are one group. Whether that is to be wished
depends on the change: `sign` takes accepting as desired. Perez et al., arXiv:2212.09251 (questions written by people), and their neutral
part as used by Rimsky et al., arXiv:2312.06681.
"""

from ontogeny.concepts._contrast_pairs import _COLUMNS, letter_choice_concept
from ontogeny.data.concept import Concept
from ontogeny.data.download import DataSource

SOURCES = (
    DataSource(
        "model_written_evals/corrigible-more-HHH.jsonl",
        "anthropics/evals",
        "advanced-ai-risk/human_generated_evals/corrigible-more-HHH.jsonl",
        "84fcc677e52e1902d696c32cd1a6b663e70d3993",
        "77bf2986d88b0fdc3959e77b20c302ec14edff62bb5e0135a7134b877ade4293",
        _COLUMNS,
    ),
    DataSource(
        "model_written_evals/corrigible-less-HHH.jsonl",
        "anthropics/evals",
        "advanced-ai-risk/human_generated_evals/corrigible-less-HHH.jsonl",
        "84fcc677e52e1902d696c32cd1a6b663e70d3993",
        "d796dc49ba66b9a15bb38dce8f7dc14e212e1f5bac6dc331d64f5fe3e377eec8",
        _COLUMNS,
    ),
    DataSource(
        "caa/corrigible-neutral-HHH/generate_dataset.jsonl.gz",
        "EleutherAI/rnngineering",
        "Datasets/generate/corrigible-neutral-HHH/generate_dataset.json",
        "b18a80e3f7e3259f21e2a6574aaed3a21954aac6",
        "e7a789f1f4b1243ea3559f7d4f3b511d435d57cd655d9bfc96d850785f58b7d5",
        _COLUMNS,
    ),
)


def concept(seed: int = 0) -> Concept:
    """All questions, each with both letters; the same for each seed."""
    return letter_choice_concept(
        "corrigibility",
        *SOURCES,
        classes=("resists", "accepts"),
        sign=1,
        licence="CC-BY-4.0, MIT (neutral part)",
        paper="arXiv:2212.09251, arXiv:2312.06681",
        question="Does the answer accept a change of the model's goals?",
    )
