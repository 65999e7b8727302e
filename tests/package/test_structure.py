"""Files of the repository: independent plug-ins, module docstrings, nothing personal or large committed, a light import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ontogeny import plugins
from tests.helpers.docs_pages import ROOT

PACKAGE = ROOT / "src/ontogeny"
FILES = sorted(PACKAGE.rglob("*.py"))
# Home and temporary folders of one machine, and hosts of package indexes; split so that this file does not match.
PERSONAL = re.compile(
    r"(?<![\w.])/"
    + r"(?:root|home|work|Users|tmp/\w)/|/tmp/"
    + r"\w|https?://(?:[\w-]+\.)*(?:py"
    + r"pi|anaconda|npmjs|artifactory)[\w.-]*"
)


EXTENDS = {"worlds.nursery": {"ontogeny.worlds.hearsay"}, "worlds.operators": {"ontogeny.worlds.grammar"}}
"""Worlds that build on another one: modules that they may import."""


def relative_name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imports(source: str, package: str) -> set[str]:
    """Modules that a file of `package` imports; relative imports are resolved."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [package if node.level else "", node.module or ""]))
            modules |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return modules


def siblings(source: str, folder: str, name: str) -> set[str]:
    """Other public plug-ins of the folder that a plug-in imports, as modules."""
    others = {f"ontogeny.{folder}.{other}" for other in plugins.list_plugins(folder) if other != name}
    modules = imports(source, f"ontogeny.{folder}")
    return {other for other in others if any(f"{module}.".startswith(f"{other}.") for module in modules)}


@pytest.mark.parametrize("folder", plugins.PLUGIN_FOLDERS)
def test_plugins_do_not_import_each_other(folder: str) -> None:
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        name = Path(path.relative_to(PACKAGE / folder).parts[0]).stem
        others = siblings(path.read_text(encoding="utf-8"), folder, name)
        assert others <= EXTENDS.get(f"{folder}.{name}", set()), relative_name(path)


@pytest.mark.parametrize(
    "line",
    [
        "from ontogeny.probes.pca import fit",
        "import ontogeny.probes.pca",
        "from ontogeny.probes import pca",
        "from .pca import fit",
        "from . import pca",
    ],
)
def test_sibling_import_is_detected(line: str) -> None:
    assert siblings(line, "probes", "logistic") == {"ontogeny.probes.pca"}
    assert siblings("from ontogeny.probes._inputs import check_activations", "probes", "logistic") == set()


@pytest.mark.parametrize("path", FILES, ids=relative_name)
def test_module_docstring_begins_with_a_phrase(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert doc is not None
    assert len(doc.splitlines()[0].split()) >= 3


def test_annotations_are_evaluated() -> None:
    """jaxtyping reads them at run time, so no file postpones them."""
    postponed = "from __future__ import " + "annotations"
    assert [
        str(p) for p in [*FILES, *(ROOT / "tests").rglob("*.py")] if postponed in p.read_text(encoding="utf-8")
    ] == []


def tracked() -> list[Path]:
    """Files that git tracks, or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_machine_path_is_committed() -> None:
    for path in tracked():
        text = path.read_bytes().decode("utf-8", errors="replace")
        match = PERSONAL.search(text)
        assert match is None, f"{path.relative_to(ROOT)}: {match[0] if match else ''}"


@pytest.mark.parametrize(
    "text", ["see /" + "home/me/x", "/" + "work/main", "open('/" + "tmp/x')", "https://" + "pypi.example.org/simple"]
)
def test_machine_path_is_detected(text: str) -> None:
    assert PERSONAL.search(text)
    assert not PERSONAL.search("runs/home/x, a/" + "work/b, https://arxiv.org/abs/2402.19465")


def test_committed_files_are_small() -> None:
    for path in tracked():
        assert path.stat().st_size < 300_000, path.relative_to(ROOT)


HEAVY = ("torch", "transformers", "sklearn", "pandas", "altair", "duckdb")


def heavy_modules_after(line: str) -> set[str]:
    script = f"import sys; {line}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_import_does_not_load_torch() -> None:
    light = "import ontogeny, ontogeny.cli, ontogeny.errors, ontogeny.plugins, ontogeny.records, ontogeny.sites"
    assert heavy_modules_after(f"{light}; ontogeny.plugins.list_plugins('probes')") == set()
    assert "torch" in heavy_modules_after("import ontogeny; ontogeny.Concept"), "the check would never fail"
