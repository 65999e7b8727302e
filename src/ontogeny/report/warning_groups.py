"""Warnings of a report, grouped by cause: at most three in full, the rest folded."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_IN_FULL = 3
_CAUSES = (
    ("Checkpoints that cannot be trusted or were not measured", r"^(was not measured|\w+: .*\. )"),
    ("The same numbers are not reproduced", r"parity"),
    ("Concepts without a score", r"^(has no score|could not be scored)"),
    ("The surface of the text tells the label", r"surface|^can be told from"),
    ("Read as well without training or along random directions", r"better than (in the untrained|along the best)"),
    ("Random labels are read as well", r"random labels"),
    ("Scores that are optimistic", r"optimistic"),
    ("Events that are not shown", r" censored: "),
    ("Values that could not be measured", r"^could not be measured"),
)
"""Causes, most important first, with the texts that belong to them."""
_OTHER = "Other"


@dataclass(frozen=True)
class WarningGroup:
    """Warnings of one cause."""

    cause: str
    warnings: tuple[tuple[str, str], ...]
    """(subject, text)."""


@dataclass(frozen=True)
class GroupedWarnings:
    """The first warning of the three most important causes, and all others by cause."""

    first: tuple[tuple[str, str], ...]
    rest: tuple[WarningGroup, ...]

    @property
    def folded(self) -> int:
        """Number of warnings that are not in full."""
        return sum(len(group.warnings) for group in self.rest)


def group_warnings(warnings: Sequence[tuple[str, str]]) -> GroupedWarnings:
    """Warnings (subject, text) by cause; of several subjects with one text, the subjects together."""
    by_cause: dict[str, list[tuple[str, str]]] = {cause: [] for cause in (*(cause for cause, _ in _CAUSES), _OTHER)}
    for subject, text in warnings:
        by_cause[_cause(subject, text)].append((subject, text))
    groups = [(cause, own) for cause, own in by_cause.items() if own]
    if len(warnings) <= _IN_FULL:
        return GroupedWarnings(tuple(warning for _, own in groups for warning in own), ())
    first = tuple(own[0] for _, own in groups[:_IN_FULL])
    rest = (WarningGroup(cause, tuple(w for w in own if w not in first)) for cause, own in groups)
    return GroupedWarnings(first, tuple(group for group in rest if group.warnings))


def _cause(subject: str, text: str) -> str:
    if subject == "Parity":
        return _CAUSES[1][0]
    return next((cause for cause, pattern in _CAUSES if re.search(pattern, text)), _OTHER)
