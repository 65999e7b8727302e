"""True and false statements of one topic: what the concepts truth_… share.

The geometry of truth (Marks & Tegmark, arXiv:2310.06824) and topics of Azaria & Mitchell (arXiv:2304.13734), with negations by Levinstein
& Herrmann (arXiv:2307.00175). A statement's subject is its group, and a statement with its negation or its false twin is a pair.
"""

from collections.abc import Callable, Hashable
from typing import Any

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys, opposite_target_pairs


def true_false_concept(
    name: str,
    source: download.DataSource,
    *,
    subject: Callable[[dict[str, Any]], Hashable] | None = None,
    twin: Callable[[dict[str, Any]], Hashable] | None = None,
    adjacent: bool = False,
    type: str | None = None,
    licence: str,
    paper: str,
) -> Concept:
    """The concept of a table with the columns statement and label.

    `subject` names what is shared, `twin` (else the subject) what makes two rows a pair, `adjacent` that rows 1 and 2, 3 and 4, … do.
    """
    rows = download.read_rows(source)
    texts, targets = [row["statement"].strip() for row in rows], [row["label"] == "1" for row in rows]
    keys: list[Hashable | None] = [subject(row) if subject else None for row in rows]
    beside: list[Hashable] = [i // 2 for i in range(len(rows))]
    twins = beside if adjacent else [twin(row) for row in rows] if twin else keys
    groups = group_by_keys(texts, keys, *([beside] if adjacent else []))
    paired = opposite_target_pairs(twins, targets) if subject or twin or adjacent else [None] * len(rows)
    return Concept(
        name,
        tuple(
            Example(text, target, group, pair, type=None if type is None else row[type])
            for text, target, group, pair, row in zip(texts, targets, groups, paired, rows, strict=True)
        ),
        classes=("false", "true"),
        licence=licence,
        source=download.cite_sources(source, paper=paper),
        question="Is the statement true?",
    )


def subject_before(*words: str) -> Callable[[dict[str, Any]], str]:
    """The subject of a statement: what stands before the first of these words."""

    def subject(row: dict[str, Any]) -> str:
        padded = f"{row['statement']} "
        return str(padded[: min((at for word in words if (at := padded.find(f" {word} ")) > 0), default=len(padded))])

    return subject
