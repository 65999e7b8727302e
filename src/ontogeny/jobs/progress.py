"""Progress events of a long job."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class TraceProgress:
    """One step of a long job."""

    checkpoint: str
    checkpoints_done: int
    checkpoints_total: int
    activity: str
    """`reading`, `measuring truth`, …"""
    done: int = 0
    """Texts of this activity that are done."""
    total: int = 0


ProgressCallback = Callable[[TraceProgress], None]


def ignore_progress(_: TraceProgress) -> None:
    """Do nothing."""
