"""Examples of a concept: a labelled text, and a question with a right and a wrong answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

TargetKind = Literal["binary", "classes", "number"]


@dataclass(frozen=True)
class Example:
    """One text with its target."""

    text: str
    target: bool | int | float
    """A bool, the index of a class, or a number, depending on the concept's kind."""
    group: str
    pair: str | None = None
    """The two texts of one pair differ in the concept and little else."""
    span: tuple[int, int] | None = None
    """First and one past the last character of the part that carries the concept."""
    type: str | None = None
    """Word type for the control task (arXiv:1909.03368)."""
    chat: tuple[tuple[str, str], ...] = ()
    """Role and content of each turn, if the text is a chat; a chat template renders the turns instead of the text."""


@dataclass(frozen=True)
class Answer:
    """A prompt with a right and a wrong continuation: shows whether the model uses what a probe reads."""

    prompt: str
    right: str
    wrong: str
    group: str


def class_meaning(classes: Sequence[str]) -> str:
    """Which of two named classes is positive: '1 = singular, 0 = plural'; empty for other numbers of classes."""
    return f"1 = {classes[1]}, 0 = {classes[0]}" if len(classes) == 2 else ""
