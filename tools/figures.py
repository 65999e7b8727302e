"""Print the size of the package: files, lines, the biggest rooms and files. Reports only; no figure fails a check."""

from collections import Counter
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).parents[1] / "src/ontogeny"


def room_of(path: Path) -> str:
    """The folder on the floors that a file belongs to."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "(top level)"


def figures(lengths: dict[Path, int]) -> str:
    """The figures as text; `lengths` are lines by file."""
    rooms: Counter[str] = Counter()
    for path, lines in lengths.items():
        rooms[room_of(path)] += lines
    total = sum(rooms.values())
    shares = ", ".join(f"{room} {lines / total:.1%}" for room, lines in rooms.most_common(4))
    longest = ", ".join(f"{path.relative_to(PACKAGE)} {lines}" for path, lines in Counter(lengths).most_common(3))
    return (
        f"{len(lengths)} files, {total} lines, median file {median(lengths.values()):.0f} lines\n"
        f"{len(rooms)} rooms; biggest: {shares}\n"
        f"longest files: {longest}"
    )


if __name__ == "__main__":
    print(figures({path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}))
