"""TODO docstring of src/ontogeny/data/examples.py"""

from dataclasses import dataclass
from typing import Literal

TargetKind = Literal["binary", "classes", "number"]


@dataclass(frozen=True)
class Example:
    """One text with its target."""

    text: str
    target: bool | int | float
    """True or False, the index of a class, or a number, by the kind of the concept."""
    group: str
    pair: str | None = None
    """The two texts of one pair differ in the concept and little else."""
    span: tuple[int, int] | None = None
    """First and one past the last character of the part that carries the concept."""
    type: str | None = None
    """Word type for the control task (arXiv:1909.03368)."""


@dataclass(frozen=True)
class Answer:
    """A prompt with a right and a wrong continuation: does the model use what a probe reads?"""

    prompt: str
    right: str
    wrong: str
    group: str
