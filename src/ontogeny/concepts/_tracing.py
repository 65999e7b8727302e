"""The five probe sets of the tracing paper as published (Qian et al., arXiv:2402.19465), with the groups that its own split lacked."""

from collections.abc import Callable, Hashable
from typing import Literal

from ontogeny.concept import Concept, Example
from ontogeny.concepts import _data
from ontogeny.concepts._groups import joined, pairs

PAPER = "arXiv:2402.19465"


def published(
    name: str,
    source: _data.Source,
    *keys: Callable[[str], Hashable | None],
    classes: tuple[str, str],
    sign: Literal[1, -1],
    licence: str,
    question: str,
    paired: bool = False,
) -> Concept:
    """A set in the paper's order; texts with a common key belong to one group, those of a pair share the first."""
    rows = [row for row in _data.read(source) if row["statement"].strip()]
    texts, targets = [row["statement"] for row in rows], [row["label"] == "1" for row in rows]
    columns = [[key(text) for text in texts] for key in keys]
    twins = pairs(columns[0], targets) if paired else [None] * len(rows)
    return Concept(
        name,
        tuple(map(Example, texts, targets, joined(texts, *columns), twins)),
        classes=classes,
        sign=sign,
        licence=licence,
        source=_data.told(source, paper=PAPER),
        question=question,
    )
