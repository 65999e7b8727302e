"""The folder is the registry: a plug-in is one file in its folder, found by name, imported only when asked for.

Outside packages join through one entry-point group a folder, named like it: `ontogeny.metrics`, `ontogeny.views`, …
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


def list_plugins(folder: str) -> list[str]:
    """Names of all plug-ins of a folder, sorted; imports none of them."""
    return sorted({*_builtin_names(folder), *_external_entry_points(folder)})


def load_plugin(folder: str, name: str) -> ModuleType:
    """The plug-in's module.

    Raises:
        BadInput: no such name, with the nearest one as a suggestion.
    """
    if name in _builtin_names(folder):
        return importlib.import_module(f"ontogeny.{folder.replace('/', '.')}.{name}")
    outside = _external_entry_points(folder)
    if name in outside:
        module: ModuleType = outside[name].load()
        return module
    raise unknown_name(SINGULAR.get(folder, folder.removesuffix("s")), name, list_plugins(folder))


def plugin_summary(folder: str, name: str) -> str:
    """First line of the plug-in's docstring, read without importing it or its folder."""
    home = Path(__file__).parent / folder
    path = home / f"{name}.py" if (home / f"{name}.py").is_file() else home / name / "__init__.py"
    if not path.is_file() and (outside := _external_entry_points(folder).get(name)):
        path = _file_of(outside.module) or path
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else None
    return doc.splitlines()[0] if doc else ""


def _file_of(module: str) -> Path | None:
    """Where a dotted module lies. Finding a nested one would import its parents; the outermost is found without."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.joinpath(*rest).with_suffix(".py") if rest else Path(spec.origin)


def _builtin_names(folder: str) -> list[str]:
    if folder not in PLUGIN_FOLDERS:
        raise unknown_name("plug-in folder", folder, PLUGIN_FOLDERS)
    found = pkgutil.iter_modules([str(Path(__file__).parent / folder)])
    return [module.name for module in found if not module.name.startswith("_")]


def _external_entry_points(folder: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in _points(folder, tuple(sys.path))}


@functools.cache
def _points(folder: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    # Reading the metadata of all installed packages takes 30 ms: once for each path that is searched.
    return tuple(entry_points(group=f"ontogeny.{folder.replace('/', '.')}"))
