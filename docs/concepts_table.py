"""Writes the table of docs/concepts.md: each concept of the library with what it is and how far its surface alone tells it.

ONTOGENY_DATA=../shared/data python docs/concepts_table.py
"""

import ast
from pathlib import Path

from ontogeny import plugins
from ontogeny.data.concept import Concept
from ontogeny.statistics.splits import group_split
from ontogeny.measurements.surface_baselines import SurfaceAudit, audit_surface

PAGE = Path(__file__).parent / "concepts.md"
START, END = "<!-- table -->\n", "<!-- end -->\n"
HEAD = "| concept | label | examples | groups | answers | commonest class | TF-IDF | length | casing | licence |"


def row(name: str) -> str:
    """One line of the table, measured on the split that a trace uses with seed 0."""
    made: Concept = plugins.load_plugin("concepts", name).concept()
    split = group_split(made.group_ids(), made.labels(), made.kind, seed=0)
    found = audit_surface(made, split, samples=2)
    counts = (len(made.examples), len({example.group for example in made.examples}), len(made.answers))
    floors = [shown(found, floor) for floor in ("tfidf", "length", "casing")]
    cells = (f"`{name}`", meaning(name), *map(str, counts), majority(found), *floors, str(made.licence))
    return f"| {' | '.join(cells)} |"


def meaning(name: str) -> str:
    """The first line of the file: its question, and what label 1 means."""
    path = Path(plugins.__file__).parent / "concepts" / f"{name}.py"
    line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]
    return line.replace("|", "\\|")


def shown(found: SurfaceAudit, floor: str) -> str:
    metric, score = found.baselines[floor].main
    return f"{score.value + 0.0:.2f}".replace("-0.00", "0.00") + (" (R²)" if metric == "r2" else "")


def majority(found: SurfaceAudit) -> str:
    value = found.baselines["majority"].accuracy
    return "" if value != value else f"{value:.2f}"


def table(names: list[str]) -> str:
    return "\n".join([HEAD, "|" + "---|" * HEAD.count(" | ") + "---|", *map(row, names)]) + "\n"


def main() -> None:
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{START}{table(plugins.list_plugins('concepts'))}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
