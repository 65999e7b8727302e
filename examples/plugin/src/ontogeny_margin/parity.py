"""Parity: is the number in a sentence even? Generated, so it needs no download."""

from ontogeny.data.concept import Concept
from ontogeny.data.examples import Example

SUBJECTS = ("the box holds", "a train has", "we counted", "she saw", "the garden has")
THINGS = ("apples", "doors", "birds", "letters")


def concept(seed: int = 0) -> Concept:
    """Each number is a group; its sentences differ in their words."""
    examples = tuple(
        Example(
            f"{SUBJECTS[(number + shift) % 5]} {number} {THINGS[(number + shift) % 4]}", number % 2 == 0, f"{number}"
        )
        for number in range(10, 70)
        for shift in (0, 1)
    )
    return Concept(
        "parity",
        examples,
        classes=("odd", "even"),
        licence="Apache-2.0",
        source="generated",
        question="Is the number even?",
    )
