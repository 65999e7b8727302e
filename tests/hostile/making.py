"""What hostile cases of several kinds are made with."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

Case = Callable[[Path], list[object]]
"""Takes a folder with a good `model`, a good `planted.csv` and a finished `run`, damages it, and gives the words of a command."""
DEEP = "[" * 100_000
"""JSON and TOML that is nested deeper than a reader's stack."""


def traced(change: Callable[[Path], None], *more: object) -> Case:
    """A trace of the model after a change to its folder."""

    def make(place: Path) -> list[object]:
        change(place / "model")
        return ["trace", place / "model", "-c", place / "planted.csv", "-o", place / "out", *more]

    return make


def given(*options: object) -> Case:
    """A trace of the good model with other options."""
    return traced(lambda _: None, *options)


def header(table: object) -> bytes:
    told = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(told)) + told
