"""What a long job says of itself while it runs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class TraceProgress:
    checkpoint: str
    index: int
    """Checkpoints that are done."""
    of: int
    what: str
    """`reading`, `measuring truth`, …"""
    done: int = 0
    total: int = 0
    """Of this step, in texts."""


ProgressCallback = Callable[[TraceProgress], None]


def ignore_progress(_: TraceProgress) -> None:
    """Nobody watches."""
