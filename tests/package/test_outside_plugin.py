"""The package in examples/plugin, installed beside this one: its entry points are found, and its tests run the public contracts."""

import os
import tomllib
from pathlib import Path

import pytest

from tests.helpers.docs_pages import ROOT
from tests.helpers.subprocesses import python

PLUGIN = ROOT / "examples/plugin"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which the package is installed: its metadata as pip writes them, from its pyproject.toml."""
    home = tmp_path_factory.mktemp("installed")
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    metadata = home / "ontogeny_margin-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in points.items()) for group, points in groups]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    path = os.pathsep.join(map(str, (home, PLUGIN / "src")))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def test_plugins_of_another_package_meet_the_contracts(installed: dict[str, str]) -> None:
    code = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-q", "-rA", "-p", "no:cacheprovider", "-c", str(PLUGIN / "pyproject.toml")]
    done = python(code, str(PLUGIN / "tests"), *options, env=installed, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    assert len(passed) == sum(1 for line in _tests() if line.startswith("def test_"))


def test_every_file_of_the_package_is_an_entry_point() -> None:
    points = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    named = {value for group in points.values() for value in group.values()}
    files = {f"ontogeny_margin.{path.stem}" for path in (PLUGIN / "src/ontogeny_margin").glob("*.py")}
    assert named == files - {"ontogeny_margin.__init__"}


def _tests() -> list[str]:
    return [line for path in Path(PLUGIN / "tests").glob("*.py") for line in path.read_text().splitlines()]
