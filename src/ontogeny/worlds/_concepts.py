"""Concepts of generated worlds."""

from collections.abc import Iterable, Sequence

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Answer, Example, TargetKind


def world_concept(
    world: str,
    name: str,
    examples: Sequence[Example],
    question: str,
    *,
    answers: Iterable[Answer] = (),
    classes: tuple[str, ...] = (),
    kind: TargetKind | None = None,
    sign: int = +1,
) -> Concept:
    """A concept of the plug-in `world`; by default binary, or of classes if they have names."""
    return Concept(
        name,
        tuple(examples),
        kind or ("classes" if classes else "binary"),
        classes,
        answers=tuple(answers),
        sign=sign,
        licence="CC0-1.0",
        source=f"generated: ontogeny.worlds.{world}",
        question=question,
    )
