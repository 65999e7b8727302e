"""The five probe sets of the tracing paper as published (Qian et al., arXiv:2402.19465), with the groups that its own split lacked."""

from collections.abc import Callable, Hashable
from typing import Literal

from ontogeny.data import download
from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example
from ontogeny.data.grouping import group_by_keys, opposite_target_pairs

TRACING_PAPER = "arXiv:2402.19465"


def tracing_paper_concept(
    name: str,
    source: download.DataSource,
    *keys: Callable[[str], Hashable | None],
    classes: tuple[str, str],
    sign: Literal[1, -1],
    licence: str,
    question: str,
    paired: bool = False,
) -> Concept:
    """A set in the paper's order; texts with a common key belong to one group, those of a pair share the first."""
    rows = [row for row in download.read_rows(source) if row["statement"].strip()]
    texts, targets = [row["statement"] for row in rows], [row["label"] == "1" for row in rows]
    columns = [[key(text) for text in texts] for key in keys]
    twins = opposite_target_pairs(columns[0], targets) if paired else [None] * len(rows)
    return Concept(
        name,
        tuple(map(Example, texts, targets, group_by_keys(texts, *columns), twins)),
        classes=classes,
        sign=sign,
        licence=licence,
        source=download.cite_sources(source, paper=TRACING_PAPER),
        question=question,
    )
