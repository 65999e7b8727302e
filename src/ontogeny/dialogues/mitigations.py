"""Mitigations of drift: split-softmax, repetition of the system prompt, classifier-free guidance, and activation capping.

`plain` is none of them. Each has one strength, at a value of which it changes nothing. Sources: arXiv:2402.10962 (split-softmax,
repetition, guidance), arXiv:2601.10387 (capping along an axis).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ontogeny.errors import BadInput, unknown_name

MITIGATIONS: Mapping[str, tuple[float, str]] = {
    "plain": (0.0, "none"),
    "split_softmax": (0.7, "k: the share of attention to the system prompt becomes its k-th power; 1 changes nothing"),
    "repetition": (2.0, "period: every so many user turns, counted from the last, repeat the system prompt; 0 none"),
    "guidance": (1.5, "scale of the logits with the system prompt against those without; 1 changes nothing"),
    "capping": (
        0.25,
        "quantile of the first answers' projections on the persona axis, below which later ones are raised; 0 none",
    ),
}
"""Default strength of each, and its meaning."""


@dataclass(frozen=True)
class Mitigation:
    """One mitigation at one strength."""

    kind: str = "plain"
    strength: float = 0.0
    control: int | None = None
    """Seed of the control: split-softmax of as many random tokens, capping along a random axis; None for the mitigation itself."""

    def __post_init__(self) -> None:
        if self.kind not in MITIGATIONS:
            raise unknown_name("mitigation", self.kind, MITIGATIONS)
        value = self.strength
        bounds = {
            "split_softmax": (0 < value <= 1, "above 0 and at most 1"),
            "repetition": (value >= 0 and value % 1 == 0, "a whole number from 0 on"),
            "guidance": (0 <= value < math.inf, "a number from 0 on"),
            "capping": (0 <= value < 1, "from 0 to below 1"),
        }
        fits, wanted = bounds.get(self.kind, (True, ""))
        if not (math.isfinite(value) and fits):
            raise BadInput(
                f"the strength of {self.kind} must be {wanted}, got {value:g}: try {MITIGATIONS[self.kind][0]:g}."
            )
        if self.control is not None and self.kind not in ("split_softmax", "capping"):
            raise BadInput(f"only split_softmax and capping have a control, got one for {self.kind}: leave it out.")

    @property
    def name(self) -> str:
        """As in split_softmax .7."""
        return self.kind if self.kind == "plain" else f"{self.kind} {self.strength:g}".replace(" 0.", " .")

    @property
    def is_noop(self) -> bool:
        """Whether it changes nothing."""
        none = {"plain": self.strength, "split_softmax": 1.0, "repetition": 0.0, "guidance": 1.0, "capping": 0.0}
        return self.strength == none[self.kind]


PLAIN = Mitigation()


def parse_mitigations(texts: Sequence[str]) -> list[Mitigation]:
    """Mitigations from texts such as `plain`, `split_softmax` (at its default strength) or `split_softmax=0.8,0.6`.

    Raises:
        BadInput: an unknown name, a strength that is not a number or is outside of its range, or one given twice.
    """
    mitigations = []
    for text in texts:
        kind, equals, listed = text.strip().partition("=")
        if kind not in MITIGATIONS:
            raise unknown_name("mitigation", kind, MITIGATIONS)
        if equals and kind == "plain":
            raise BadInput(f"plain has no strength, got {text!r}: write plain.")
        try:
            strengths = [float(part) for part in listed.split(",")] if equals else [MITIGATIONS[kind][0]]
        except ValueError:
            raise BadInput(f"strengths must be numbers separated by commas, got {text!r}: write {kind}=1.") from None
        mitigations += [Mitigation(kind, strength) for strength in strengths]
    if twice := [one for one in mitigations if mitigations.count(one) > 1]:
        raise BadInput(f"mitigations must be different, got {twice[0].name} twice: leave one out.")
    return mitigations
