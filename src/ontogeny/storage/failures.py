"""Failures: the checkpoints or studies of a run that could not be measured, as run.json lists them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EVALUATION_FAILURES = "evaluation_failures"
"""Key of the failures of an evaluation in run.json, beside `failures`, which are those of a trace or a comparison."""


@dataclass(frozen=True)
class Failure:
    """A checkpoint that could not be measured."""

    checkpoint: str
    stage: str
    reason: str


def failures_in(about: Mapping[str, Any]) -> list[Failure]:
    """The failures that a run.json lists."""
    entries = [*about.get("failures", ()), *about.get(EVALUATION_FAILURES, ())]
    known = [entry for entry in entries if isinstance(entry, Mapping)]
    return [Failure(*(str(entry.get(name, "")) for name in ("checkpoint", "stage", "reason"))) for entry in known]
