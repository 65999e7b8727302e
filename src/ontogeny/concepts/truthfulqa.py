"""Is the answer true? Label 1: one of the correct answers of TruthfulQA, 0: one of the incorrect ones that people believe.

All answers to a question and its near-copies are one group. The answers ask whether the model gives the best answer a higher
likelihood than the best incorrect one. Lin et al., arXiv:2109.07958.
"""

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.grouping import group_by_keys, near_duplicate_ids

SOURCES = (
    download.DataSource(
        "truthfulqa/TruthfulQA.csv",
        "koppula/TruthfulQA",
        "TruthfulQA.csv",
        "4dee2311b23de20b43bfc12ace7037f3f71ba421",
        "b8d8ef1e12f98b4f2a9f47abc9765da0640b182b6c5d9b92f0c1a1f2f1e02e5c",
        ("Question", "Best Answer", "Best Incorrect Answer", "Correct Answers", "Incorrect Answers"),
    ),
)


def concept(seed: int = 0) -> Concept:
    """All answers to all questions; the same for each seed."""
    rows = download.read_rows(SOURCES[0])
    groups = group_by_keys(
        [row["Question"] for row in rows], near_duplicate_ids([row["Question"] for row in rows], 0.8)
    )
    examples, answers = [], []
    for row, group in zip(rows, groups, strict=True):
        prompt = f"Q: {row['Question'].strip()}\nA:"
        right, wrong = (dict.fromkeys(_split_list(row[f"{kind} Answers"])) for kind in ("Correct", "Incorrect"))
        examples += [Example(f"{prompt} {answer}", True, group) for answer in right if answer not in wrong]
        examples += [Example(f"{prompt} {answer}", False, group) for answer in wrong if answer not in right]
        answers.append(
            Answer(prompt, f" {row['Best Answer'].strip()}", f" {row['Best Incorrect Answer'].strip()}", group)
        )
    return Concept(
        "truthfulqa",
        tuple(examples),
        classes=("false", "true"),
        answers=tuple(answers),
        licence="Apache-2.0",
        source=download.cite_sources(*SOURCES, paper="arXiv:2109.07958"),
        question="Is the answer true?",
    )


def _split_list(answers: str) -> list[str]:
    return [answer.strip() for answer in answers.split(";") if answer.strip()]
