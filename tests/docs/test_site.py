"""The pages of the site that are made from the code are complete: every view, command and public name; notebooks are stored clean."""

import ast
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import ontogeny
from ontogeny import plugins
from ontogeny.cli import app
from tests.helpers.docs_pages import ROOT

NOTEBOOKS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages") / "_generated"
    loaded(ROOT / "docs/build_pages.py").write(folder)
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}


def test_gallery_has_an_entry_for_every_view() -> None:
    entries = loaded(ROOT / "docs/build_pages.py").gallery_entries()
    assert set(entries) == set(plugins.list_plugins("views"))
    assert [name for name, entry in entries.items() if not entry["question"].endswith("?")] == []


def test_reference_has_every_view_command_and_public_name(pages: dict[str, str]) -> None:
    assert set(pages) == {"gallery", "python", "commands"}
    assert pages["gallery"].count("\n## ") == len(plugins.list_plugins("views"))
    commands = {command.name for command in app.registered_commands if not command.hidden}
    assert {name for name in commands if f"## ontogeny {name}\n" not in pages["commands"]} == set()
    shown = re.findall(r"\.\. auto\w+:: [\w.]*?(\w+)\n", pages["python"])
    assert sorted(shown) == sorted(set(ontogeny.__all__) - {"__version__"})


def test_there_are_five_notebooks_without_outputs_that_compile() -> None:
    assert len(NOTEBOOKS) == 5
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        assert code
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)
        names = {
            node.attr
            for node in ast.walk(ast.parse("\n".join(code)))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "on"
        }
        assert names <= set(ontogeny.__all__), path.name


def test_broken_links_and_foreign_files_are_found(tmp_path: Path) -> None:
    check = loaded(ROOT / "tools/check_links.py")
    (tmp_path / "a.html").write_text(
        '<h1 id="top">a</h1><a href="b.html#here">b</a><a href="https://example.org">c</a>'
    )
    (tmp_path / "b.html").write_text('<p id="here">b</p><a href="a.html">a</a>')
    assert check.broken_links(tmp_path) == []
    (tmp_path / "b.html").write_text('<a href="c.html">c</a><script src="https://cdn.example.org/x.js"></script>')
    assert check.broken_links(tmp_path) == [
        "a.html -> b.html#here (no such anchor)",
        "b.html loads https://cdn.example.org/x.js",
        "b.html -> c.html",
    ]


def test_every_page_is_in_the_contents() -> None:
    """Else the build of the site fails."""
    contents = [ROOT / f"docs/{name}.md" for name in ("index", "how-to", "reference", "background")]
    lines = {line for path in contents for line in path.read_text(encoding="utf-8").splitlines()}
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert {page for page in pages if page not in lines and not page.startswith("add-")} == set()
