"""How the house is built: plug-ins do not know each other, files are small and say what they are, nothing personal is committed."""

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
LONGEST = 400
# Home folders and temporary folders of one machine, and hosts of package indexes; written in pieces, or this file would hold them.
PERSONAL = re.compile(
    r"(?<![\w.])/"
    + r"(?:root|home|work|Users|tmp/\w)/|/tmp/"
    + r"\w|https?://(?:[\w-]+\.)*(?:py"
    + r"pi|anaconda|npmjs|artifactory)[\w.-]*"
)


def named(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imports(source: str, package: str) -> set[str]:
    """Modules that a file of `package` imports, relative ones written out."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [package if node.level else "", node.module or ""]))
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def siblings(source: str, folder: str, name: str) -> set[str]:
    """Public plug-ins of the same folder that a plug-in imports."""
    others = {other for other in plugins.list_plugins(folder) if other != name}
    return {
        module
        for module in imports(source, f"ontogeny.{folder}")
        for other in others
        if module == f"ontogeny.{folder}.{other}"
    }


@pytest.mark.parametrize("folder", plugins.PLUGIN_FOLDERS)
def test_plugins_do_not_import_each_other(folder: str) -> None:
    for path in sorted((PACKAGE / folder).glob("*.py")):
        assert siblings(path.read_text(encoding="utf-8"), folder, path.stem) == set(), named(path)


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
def test_an_import_of_a_sibling_would_be_found(line: str) -> None:
    assert siblings(line, "probes", "logistic") == {"ontogeny.probes.pca"}
    assert siblings("from ontogeny.probes._inputs import check_activations", "probes", "logistic") == set()


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_says_what_it_is_and_stays_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    doc = ast.get_docstring(ast.parse(text))
    assert doc is not None
    assert len(doc.splitlines()[0].split()) >= 3, "no first line that says the idea"
    assert len(text.splitlines()) <= LONGEST


def test_annotations_are_not_postponed() -> None:
    """jaxtyping reads them at run time."""
    postponed = "from __future__ import " + "annotations"
    assert [
        str(p) for p in [*FILES, *(ROOT / "tests").rglob("*.py")] if postponed in p.read_text(encoding="utf-8")
    ] == []


def test_files_are_short_on_the_whole() -> None:
    lengths = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES)
    assert lengths[len(lengths) // 2] <= 130


def tracked() -> list[Path]:
    """What git keeps, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout: what is committed cannot be told")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_nothing_personal_is_committed() -> None:
    for path in tracked():
        text = path.read_bytes().decode("utf-8", errors="replace")
        found = PERSONAL.search(text)
        assert found is None, f"{path.relative_to(ROOT)}: {found[0] if found else ''}"


@pytest.mark.parametrize(
    "text", ["see /" + "home/me/x", "/" + "work/main", "open('/" + "tmp/x')", "https://" + "pypi.example.org/simple"]
)
def test_something_personal_would_be_found(text: str) -> None:
    assert PERSONAL.search(text)
    assert not PERSONAL.search("runs/home/x, a/work/b, https://arxiv.org/abs/2402.19465")


def test_no_binaries_but_small_ones() -> None:
    for path in tracked():
        assert path.stat().st_size < 300_000, path.relative_to(ROOT)


HEAVY = ("torch", "transformers", "sklearn", "pandas", "altair", "duckdb")


def loaded_by(line: str) -> set[str]:
    script = f"import sys; {line}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_the_front_door_is_light() -> None:
    light = "import ontogeny, ontogeny.cli, ontogeny.errors, ontogeny.plugins, ontogeny.records, ontogeny.sites"
    assert loaded_by(f"{light}; ontogeny.plugins.list_plugins('probes')") == set()
    assert "torch" in loaded_by("import ontogeny; ontogeny.Concept"), "the comparison could not fail"
