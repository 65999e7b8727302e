"""The form of README, citation, changelog and decisions; test_docs runs their code blocks."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.helpers.docs_pages import ROOT, blocks


def test_readme_begins_with_a_short_example() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines.index("```python") < 10
    assert len(next(b for b in blocks(ROOT / "README.md") if b.kind == "python").text.splitlines()) <= 12


def test_citation_names_this_version() -> None:
    import yaml

    import ontogeny

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == ontogeny.__version__
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]


def test_changelog_is_short_sentences() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    changes, _, results = text.partition("### Results")
    # A result says the number before and after, and why.
    for part, most in ((changes, 40), (results, 75)):
        lines = re.findall(r"(?m)^- (.+)$", part)
        assert lines
        assert [line for line in lines if len(line.split()) > most or not line.endswith((".", "`", ")."))] == []
    assert "## Unreleased" in text
    assert "### Results" in text


@pytest.mark.parametrize("page", sorted((ROOT / "docs/decisions").glob("*.md")), ids=lambda page: page.stem)
def test_decision_is_one_page_of_four_parts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [
        part for part in ("**Context.**", "**Choice.**", "**Price.**", "**Revisit when**") if part not in text
    ] == []
    assert len(text.split()) < 300
