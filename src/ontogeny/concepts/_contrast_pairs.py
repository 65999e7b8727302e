"""Contrast pairs: one question with two answers, of which one shows a behaviour.

Multiple choice as in contrastive activation addition (Rimsky et al., arXiv:2312.06681): the two texts differ in the letter of the answer
alone, and are read at it. Which letter is right varies from question to question, so neither words nor letter tell it, unless the data
prefer a letter. Statements (Perez et al., arXiv:2212.09251) are said by somebody with the trait, or by somebody without. Questions that
are near-copies are one group.
"""

import re
from typing import Any, Literal

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example
from ontogeny.data.grouping import group_by_keys, near_duplicate_ids

_COLUMNS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")


def letter_choice_concept(
    name: str,
    *sources: download.DataSource,
    classes: tuple[str, str],
    sign: Literal[1, -1],
    licence: str,
    paper: str,
    question: str,
    reverse: bool = False,
) -> Concept:
    """Two texts a question: label 1 with the letter of `answer_matching_behavior`, or in `reverse` with the other."""
    rows = [row for source in sources for row in download.read_rows(source)]
    asked = [_question_text(row) for row in rows]
    columns = _COLUMNS[:0:-1] if reverse else _COLUMNS[1:]
    letters = [tuple(_letter(row[column]) for column in columns) for row in rows]
    groups = group_by_keys(asked, near_duplicate_ids([text.split("Choices:")[0] for text in asked]))
    examples, answers = [], []
    for i, (prompt, (yes, no), group) in enumerate(zip(asked, letters, groups, strict=True)):
        examples += [Example(prompt + yes, True, group, f"q{i}"), Example(prompt + no, False, group, f"q{i}")]
        answers.append(Answer(prompt, yes, no, group))
    return Concept(
        name,
        tuple(examples),
        classes=classes,
        answers=tuple(answers),
        sign=sign,
        licence=licence,
        source=download.cite_sources(*sources, paper=paper),
        question=question,
    )


def persona_statement_concept(
    name: str, source: download.DataSource, *, classes: tuple[str, str], question: str
) -> Concept:
    """Statements of a persona: label 1 where the one who has the trait says yes."""
    rows = download.read_rows(source)
    texts = [row["statement"].strip() for row in rows]
    groups = group_by_keys(texts, near_duplicate_ids(texts))
    targets = [row["answer_matching_behavior"].strip() == "Yes" for row in rows]
    answers = (
        Answer(f"{row['question'].strip()}\nAnswer:", " Yes" if yes else " No", " No" if yes else " Yes", group)
        for row, yes, group in zip(rows, targets, groups, strict=True)
    )
    return Concept(
        name,
        tuple(map(Example, texts, targets, groups)),
        classes=classes,
        answers=tuple(answers),
        licence="CC-BY-4.0",
        source=download.cite_sources(source, paper="arXiv:2212.09251"),
        question=question,
    )


def _question_text(row: dict[str, Any]) -> str:
    text = row["question"].strip().removesuffix("Answer:").rstrip()
    return f"{text}\n\nAnswer: ("


def _letter(answer: str) -> str:
    found = re.search(r"\w", answer)
    return found[0] if found else answer
