"""Builders of bad inputs, and checks of the error line and of the folder afterwards."""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.planted_lineages import write

Refuses = Callable[[list[str], str], None]


@dataclass(frozen=True)
class Place:
    """A valid model, a valid concept file, and an empty folder for damaged copies."""

    folder: Path
    model: Path
    concept: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def copy(self) -> Path:
        """A copy of the model, to be damaged."""
        return Path(shutil.copytree(self.model, self.folder / "model"))

    def trace(self, model: Path | str | None = None, concept: Path | str | None = None, *more: str) -> list[str]:
        return ["trace", str(model or self.model), "-c", str(concept or self.concept), "-o", str(self.out), *more]

    def rows(self, table: Sequence[dict], name: str = "mine.csv") -> Path:
        return write(self.folder / name, table)

    def text(self, content: str | bytes, name: str = "mine.csv") -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


def everything(folder: Path) -> set[tuple[str, int]]:
    """Every file and folder below, with its size."""
    return {(str(p.relative_to(folder)), p.stat().st_size if p.is_file() else -1) for p in folder.rglob("*")}


def one_line(err: str) -> str:
    """The error line, without the progress lines before it."""
    lines = [line for line in err.splitlines() if not re.match(r"\[\d+/\d+\] ", line)]
    assert len(lines) == 1, err
    assert lines[0].startswith("ontogeny: "), err
    assert "Traceback" not in err
    return lines[0]
