"""Plug-ins: the folder is the registry. A plug-in is one file in its folder, found by name and imported on demand.

Other packages register plug-ins through the entry-point group of a folder: `ontogeny.metrics`, `ontogeny.views`, …
"""

import ast
import functools
import importlib
import importlib.util
import pkgutil
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from ontogeny.errors import unknown_name

PLUGIN_FOLDERS = (
    "architectures",
    "concepts",
    "metrics",
    "probes",
    "steering/methods",
    "studies",
    "suites",
    "views",
    "worlds",
)
SINGULAR = {"studies": "study", "steering/methods": "steering method"}


def list_plugins(folder: str, *, defining: str | None = None) -> list[str]:
    """Sorted names of the plug-ins of a folder, without importing them: `list_plugins("probes")`.

    Args:
        folder: architectures, concepts, metrics, probes, steering/methods, studies, suites, views or worlds.
        defining: Only plug-ins whose module assigns this name, where a folder has plug-ins of two kinds.
    """
    names = sorted({*_builtin_names(folder), *_external_entry_points(folder)})
    return names if defining is None else [name for name in names if defining in _assigned_names(folder, name)]


def check_plugin(folder: str, name: str, *, defining: str | None = None) -> None:
    """Check that a plug-in exists, without importing it.

    Args:
        folder: As of `list_plugins`.
        name: Name of the plug-in.
        defining: The error names only plug-ins whose module assigns this name.

    Raises:
        BadInput: the name is unknown.
    """
    if name not in list_plugins(folder):
        known = list_plugins(folder, defining=defining)
        raise unknown_name(SINGULAR.get(folder, folder.removesuffix("s")), name, known)


def is_builtin_plugin(folder: str, name: str) -> bool:
    """Whether a plug-in is part of this package, not of another one."""
    return name in _builtin_names(folder)


def load_plugin(folder: str, name: str) -> ModuleType:
    """Import a plug-in's module.

    Raises:
        BadInput: the name is unknown.
    """
    check_plugin(folder, name)
    if is_builtin_plugin(folder, name):
        return importlib.import_module(f"ontogeny.{folder.replace('/', '.')}.{name}")
    module: ModuleType = _external_entry_points(folder)[name].load()
    return module


def plugin_summary(folder: str, name: str) -> str:
    """First line of a plug-in's docstring, without importing it."""
    path = _source_file(folder, name)
    return _read_source(path, path.stat().st_mtime_ns)[0] if path else ""


def _assigned_names(folder: str, name: str) -> frozenset[str]:
    """Names that a plug-in's module assigns at its top level."""
    path = _source_file(folder, name)
    return _read_source(path, path.stat().st_mtime_ns)[1] if path else frozenset()


def _source_file(folder: str, name: str) -> Path | None:
    home = Path(__file__).parent / folder
    path = home / f"{name}.py" if (home / f"{name}.py").is_file() else home / name / "__init__.py"
    if not path.is_file() and (external := _external_entry_points(folder).get(name)):
        path = _file_of(external.module) or path
    return path if path.is_file() else None


@functools.cache
def _read_source(path: Path, _changed: int) -> tuple[str, frozenset[str]]:
    """First line of a file's docstring, and the names that it assigns at its top level."""
    # Cached while the file is unchanged: a comparison asks some hundred times which plug-ins define a name.
    tree = ast.parse(path.read_text(encoding="utf-8"))
    targets: list[ast.expr] = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    doc = ast.get_docstring(tree)
    names = frozenset(target.id for target in targets if isinstance(target, ast.Name))
    return doc.splitlines()[0] if doc else "", names


def _file_of(module: str) -> Path | None:
    """File of a dotted module. Only the top-level module is looked up, since finding a nested one imports its parents."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.joinpath(*rest).with_suffix(".py") if rest else Path(spec.origin)


@functools.cache
def _builtin_names(folder: str) -> tuple[str, ...]:
    # Cached: a trace of a small model asks some hundred times, and each time would list the folder.
    if folder not in PLUGIN_FOLDERS:
        raise unknown_name("plug-in folder", folder, PLUGIN_FOLDERS)
    modules = pkgutil.iter_modules([str(Path(__file__).parent / folder)])
    return tuple(module.name for module in modules if not module.name.startswith("_"))


def _external_entry_points(folder: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in _points(folder, tuple(sys.path))}


@functools.cache
def _points(folder: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    # Cached for each search path: reading the metadata of all installed packages takes 30 ms.
    return tuple(entry_points(group=f"ontogeny.{folder.replace('/', '.')}"))
