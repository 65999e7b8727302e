"""README and docs: recipes pass the contract tests, code blocks run, options, commands, files and links exist."""

import json
import os
import re
from pathlib import Path

import pytest

from ontogeny import plugins
from ontogeny.cli import app
from ontogeny.cli._command import OLD_OPTIONS
from tests.helpers.docs_pages import PAGES, ROOT, Block, blocks, options_of_the_cli, run_page, workplace
from tests.helpers.subprocesses import python

RECIPES = sorted((ROOT / "docs").glob("add-*.md"))


def plugin_files() -> list[tuple[str, str, str]]:
    """Folder, name and text of every plug-in that a recipe shows."""
    plugin_blocks = []
    for page in RECIPES:
        for block in blocks(page):
            match = re.fullmatch(r"src/ontogeny/([\w/]+)/(\w+)\.py", block.file or "")
            if match:
                plugin_blocks.append((match[1], match[2], block.text))
    return plugin_blocks


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that holds the plug-in of every recipe and adds it through entry points."""
    home = tmp_path_factory.mktemp("outside")
    (home / "recipes").mkdir()
    (home / "recipes/__init__.py").write_text("")
    groups: dict[str, list[str]] = {}
    for folder, name, text in plugin_files():
        module = f"{folder.replace('/', '_')}_{name}"
        (home / f"recipes/{module}.py").write_text(text)
        groups.setdefault(folder.replace("/", "."), []).append(f"{name} = recipes.{module}")
    shape = next(b.text for page in RECIPES for b in blocks(page) if b.file == "shape")
    (home / "recipe_shapes.py").write_text(f"from tests.helpers.tiny_models import SHAPES\n\n{shape}")
    metadata = home / "recipes-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: recipes\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text(
        "\n".join(f"[ontogeny.{folder}]\n" + "\n".join(lines) for folder, lines in groups.items())
    )
    return home


def beside(package: Path) -> dict[str, str]:
    """The environment of a process that has the package installed."""
    return {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def test_every_folder_has_a_recipe() -> None:
    assert {folder for folder, _, _ in plugin_files()} == set(plugins.PLUGIN_FOLDERS)
    assert [name for folder, name, _ in plugin_files() if name in plugins.list_plugins(folder)] == [], (
        "already in the library"
    )


def test_recipes_pass_the_contract_tests(package: Path) -> None:
    names = [name for _, name, _ in plugin_files()]
    # Metrics are tested by the name of the function.
    tested = ["ks" if name == "cutting" else name for name in names]
    files = [f"tests/contracts/test_{folder.replace('/', '_')}.py" for folder in plugins.PLUGIN_FOLDERS]
    files.append("tests/contracts/test_paper_studies.py")
    selection = " or ".join(f"[{name}" for name in tested)
    options = ["-k", selection, "-p", "recipe_shapes", "-q", "-rA", "--tb=short"]
    code = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = python(code, *files, *options, env=beside(package), timeout=300)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    for name in tested:
        assert any(re.search(rf"\[.*\b{name}\b.*\]", line) for line in passed), f"no contract test ran for {name}"


def test_pages_run(package: Path, tmp_path: Path) -> None:
    """All blocks of all pages, in one folder and one process with the package of the recipes."""
    workplace(tmp_path)
    pages = [str(page) for page in PAGES if page.name != "CHANGELOG.md"]
    script = "import sys; from tests.helpers.docs_pages import main; main(sys.argv[1:])"
    done = python(script, *pages, env=beside(package), cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    assert json.loads(done.stdout.splitlines()[-1])["ran"] >= 20
    for path in ("runs/first/run.json", "runs/mine/report.html", "emergence.png", "mentors/checkpoint-2"):
        assert (tmp_path / path).exists(), path
    assert not (tmp_path / "runs/next").exists(), "a dry run writes nothing"
    assert undocumented(tmp_path / "runs") == set()


def undocumented(folder: Path) -> set[str]:
    """Metrics, controls and coordinates of all runs in a folder that docs/records.md does not define."""
    from ontogeny import open_runs

    # The quantities of a study are its own; its file explains them.
    paths = [path for path in sorted(folder.glob("*/run.json")) if "study" not in json.loads(path.read_text())]
    runs = open_runs([path.parent for path in paths])
    rows = runs.query(
        "select distinct metric, control, unnest(list_concat([null], map_keys(coords))) as coord from records"
    )
    names = {*rows["metric"], *rows["control"].dropna(), *rows["coord"].dropna()}
    assert {"auroc", "control_task", "best_site", "steering_works", "stage_cosine", "map_r2", "floor_name"} <= names
    page = (ROOT / "docs/records.md").read_text(encoding="utf-8")
    return {name for name in names if f"`{name}`" not in page and f"`coords.{name}`" not in page}


def test_failing_block_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text, words in (
        ("```python\nassert 1 == 2\n```\n", "assert"),
        ("```sh\nontogeny list unknown-folder\n```\n", "plug-in folder"),
        ("```sh\nontogeny show --no-such-option\n```\n", "no-such-option"),
        ("```sh\nmake nothing\n```\n", "nothing"),
    ):
        page = tmp_path / "page.md"
        page.write_text(text)
        with pytest.raises(AssertionError, match=words):
            run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page: Path) -> None:
    known = options_of_the_cli()
    assert "--steps" in known
    if page.name == "CHANGELOG.md":
        known |= {option for renamed in OLD_OPTIONS.values() for option in renamed}
    text = re.sub(r"(?m)^\.venv/bin/.*$", "", page.read_text(encoding="utf-8"))  # options of pytest
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert named <= known, named - known


def test_every_command_and_view_is_documented() -> None:
    page = (ROOT / "docs/everything.md").read_text(encoding="utf-8")
    commands = {command.name for command in app.registered_commands}
    assert {"trace", "transfer"} <= commands
    assert {name for name in commands if f"ontogeny {name}" not in page} == set()
    assert {name for name in plugins.list_plugins("views") if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), target
        if anchor:
            assert anchor in anchors(other), target


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    heads = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_text_exist(page: Path) -> None:
    """`src/…`, `tests/…` and `docs/…` in backticks, apart from the files of recipes."""
    shown = {block.file for block in blocks(page)}
    for name in re.findall(r"`((?:src|tests|docs)/[\w./-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists() or name in shown, name


def test_every_block_has_a_checked_kind() -> None:
    kinds = {"sh", "python", "csv", "jsonl", "toml", "sql", "text"}
    for page in PAGES:
        for block in blocks(page):
            assert block.kind in kinds, (page.name, block.info)


def test_block_options_are_parsed() -> None:
    page = "a\n```python file=x.py\n1\n```\nb\n```sh\nontogeny list\n```\n"
    assert Block.read(page) == [
        Block("python", {"file": "x.py"}, "1\n", "python file=x.py"),
        Block("sh", {}, "ontogeny list\n", "sh"),
    ]
