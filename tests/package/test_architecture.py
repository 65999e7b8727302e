"""The architecture of the package: floors, rooms, names that are defined once, imports without a cycle."""

import ast
import functools
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from ontogeny import plugins
from tests.helpers.docs_pages import ROOT

PACKAGE = ROOT / "src/ontogeny"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
PLUGIN_FOLDERS = {*plugins.PLUGIN_FOLDERS, "methods"}


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """The syntax tree of each file."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def relative_name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def defined_names(tree: ast.Module) -> set[str]:
    """Functions, classes, constants and type aliases that a module defines at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def is_plugin(path: Path) -> bool:
    """Whether a file is a plug-in, which defines the names of its contract: a public file, or the `__init__` of a folder."""
    entry = path.parent if path.stem == "__init__" else path
    return entry.parent.name in PLUGIN_FOLDERS and not entry.stem.startswith("_")


def contract_names(path: Path) -> set[str]:
    """Names that a file of a plug-in folder defines for the `__init__` that exports them."""
    face = path.parent / "__init__.py"
    if path.stem == "__init__" or face not in trees() or not is_plugin(face):
        return set()
    imports = [
        node for node in trees()[face].body if isinstance(node, ast.ImportFrom) and node.module == module_name(path)
    ]
    return {alias.name for node in imports for alias in node.names}


def homonyms(names: dict[str, set[str]]) -> dict[str, list[str]]:
    """Public names that more than one module defines; `names` are those of each module."""
    places = defaultdict(list)
    for module, defined in names.items():
        for name in defined:
            if not name.startswith("_"):
                places[name].append(module)
    return {name: modules for name, modules in places.items() if len(modules) > 1}


def test_public_name_is_defined_once() -> None:
    """In the whole package, plug-ins aside: these define the names of their folder's contract."""
    names = {
        relative_name(path): defined_names(tree) - contract_names(path)
        for path, tree in trees().items()
        if not is_plugin(path)
    }
    assert homonyms(names) == {}


def test_homonyms_are_detected() -> None:
    sources = {"a": "def f(): ...\n_x = 1", "b": "f: int = 1\n_x = 2", "c": "g = 1"}
    names = {module: defined_names(ast.parse(source)) for module, source in sources.items()}
    assert homonyms(names) == {"f": ["a", "b"]}


@pytest.mark.parametrize("room", ROOMS, ids=relative_name)
def test_room_describes_itself(room: Path) -> None:
    """A docstring and `__all__`; a room that defines nothing lists its public files and folders."""
    tree = trees()[room / "__init__.py"]
    assert ast.get_docstring(tree)
    if room.name in PLUGIN_FOLDERS or room.parent.name in PLUGIN_FOLDERS:
        return  # the names of a plug-in folder are the plug-ins, found by name
    listed = next((node.value for node in tree.body if _assigns(node, "__all__")), None)
    assert listed is not None, "no __all__"
    names = ast.literal_eval(listed)
    assert names == sorted(set(names))
    if not any(isinstance(node, ast.ImportFrom) for node in tree.body) and defined_names(tree) <= {"__all__"}:
        files = {path.stem for path in room.glob("*.py")} | {path.parent.name for path in room.glob("*/__init__.py")}
        assert set(names) == {name for name in files if not name.startswith("_")}


def _assigns(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)


def imported_modules(module: str, tree: ast.Module, known: set[str]) -> set[str]:
    """Modules of the package that a module imports, at its top or inside a function; imports for type checkers aside."""
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {
                inner if (inner := f"{node.module}.{alias.name}") in known else node.module for alias in node.names
            }
    return (names & known) - {module}


def test_private_files_are_imported_in_their_room_only() -> None:
    known = {module_name(path) for path in FILES}
    foreign = {
        (module_name(path), module)
        for path, tree in trees().items()
        for module in imported_modules(module_name(path), tree, known)
        if (parts := module.split("."))[-1].startswith("_") and parts[-1] != "_version"
        if not f"{module_name(path)}.".startswith(f"{'.'.join(parts[:-1])}.")
    }
    assert foreign == set()


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Nodes of one cycle, in order; empty if there is none."""
    done: set[str] = set()
    path: list[str] = []

    def visit(node: str) -> list[str]:
        if node in path:
            return path[path.index(node) :]
        if node in done:
            return []
        path.append(node)
        for successor in sorted(graph[node]):
            if cycle := visit(successor):
                return cycle
        path.pop()
        done.add(node)
        return []

    return next((cycle for node in sorted(graph) if (cycle := visit(node))), [])


def test_imports_have_no_cycle() -> None:
    modules = {
        module_name(path): tree for path, tree in trees().items() if path.parent != PACKAGE or path.stem != "__init__"
    }
    assert find_cycle({name: imported_modules(name, tree, set(modules)) for name, tree in modules.items()}) == []


def test_cycle_is_detected() -> None:
    known = {"ontogeny.a", "ontogeny.b", "ontogeny.c"}
    sources = {
        "ontogeny.a": "from ontogeny import b",
        "ontogeny.b": "def f():\n    from ontogeny.c import g",
        "ontogeny.c": "import ontogeny.a",
    }
    graph = {name: imported_modules(name, ast.parse(source), known) for name, source in sources.items()}
    assert find_cycle(graph) == ["ontogeny.a", "ontogeny.b", "ontogeny.c"]
    assert find_cycle(graph | {"ontogeny.c": set()}) == []


def contract_floors() -> list[set[str]]:
    """Floors of the import-linter contract, from the top."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = config["tool"]["importlinter"]["contracts"]
    return [set(re.findall(r"\w+", layer)) for layer in contract["layers"]]


def test_documented_floors_equal_the_contract() -> None:
    """The picture in docs/architecture.md: a group's name may precede the rooms of its first floor."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    picture = re.findall(r"(?s)```text\n(.*?)```", page)[0]
    lines = [re.sub(r"^  (\S+ ?\S*)?\s+", "", line) for line in picture.splitlines()]
    floors = [set(re.findall(r"\w+", line)) for line in lines if re.search(r"\w", line)]
    assert floors == contract_floors()


def test_readme_names_every_room() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= 150
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    tree = page.split("src/ontogeny/\n")[1].split("```")[0]
    assert set(re.findall(r"── (\w+)/", tree)) == folders
