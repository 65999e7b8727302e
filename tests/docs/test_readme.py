"""The README's tree is the disk, and the pages around it have their form; that its blocks run is shown in test_docs."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.helpers.docs_pages import ROOT, blocks

PACKAGE = "src/ontogeny"


def test_the_tree_is_the_disk() -> None:
    tree, disk = drawn(ROOT / "README.md"), on_disk()
    assert sorted(disk - tree) == [], "add a line with a comment to the tree in README.md"
    assert sorted(tree - disk) == [], "these are gone: remove their lines from the tree in README.md"


def test_the_tree_comments_every_file_of_the_package() -> None:
    bare = [line for line in tree(ROOT / "README.md") if line.rstrip().endswith(".py")]
    assert bare == []


def test_the_tree_is_read(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(
        "```text\nx/\n├── a.md   one\n├── src/ontogeny/\n│   │  floor\n│   ├── b/   two\n│   │   ├── c.py   three\n├── d/\n```\n"
    )
    assert drawn(page) == {"a.md", PACKAGE, f"{PACKAGE}/b", f"{PACKAGE}/b/c.py", "d"}


def test_the_first_python_block_comes_early() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 10
    assert len(next(b for b in blocks(ROOT / "README.md") if b.kind == "python").text.splitlines()) <= 12


def tree(page: Path) -> list[str]:
    return next(b.text for b in blocks(page) if b.kind == "text" and "src/ontogeny/" in b.text).splitlines()


def drawn(page: Path) -> set[str]:
    """Paths in the tree; a line without a branch is a remark."""
    found: set[str] = set()
    stack: list[str] = []
    for line in tree(page):
        match = re.match(r"((?:│   |    )*)[├└]── (\S+)", line)
        if match:
            depth = len(match[1]) // 4
            stack = [*stack[:depth], match[2].rstrip("/")]
            found.add("/".join(stack))
    return found


def on_disk() -> set[str]:
    """The top, the pages of docs, the folders of tests, and every file of the package (its `__init__` is its folder)."""
    files = [Path(name) for name in kept()]
    found = {path.parts[0] for path in files} - {"src"} | {PACKAGE}
    for path in files:
        if path.parts[0] in ("docs", "tests") and (len(path.parts) > 2 or path.parts[0] == "docs"):
            found.add("/".join(path.parts[:2]))
        if path.is_relative_to(PACKAGE):
            found |= {str(path)} - {str(path.with_name("__init__.py"))}
            found |= {str(parent) for parent in path.parents if parent.is_relative_to(PACKAGE)}
    return found


def kept() -> list[str]:
    """What git keeps, so that unfinished files beside them do not count; all files where there is no git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]
    ignored = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()} | {".git"}
    every = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [str(path) for path in every if not ignored & set(path.parts)]


def test_the_citation_names_this_version() -> None:
    import yaml

    import ontogeny

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == ontogeny.__version__
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]


def test_the_changelog_is_short_sentences() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    lines = re.findall(r"(?m)^- (.+)$", text)
    assert lines
    assert [line for line in lines if len(line.split()) > 25 or not line.endswith((".", "`"))] == []
    assert "## Unreleased" in text
    assert "### Results" in text


@pytest.mark.parametrize("page", sorted((ROOT / "docs/decisions").glob("*.md")), ids=lambda page: page.stem)
def test_a_decision_is_one_page_of_four_parts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [
        part for part in ("**Context.**", "**Choice.**", "**Price.**", "**Revisit when**") if part not in text
    ] == []
    assert len(text.split()) < 300
