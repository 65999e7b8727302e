"""Fixtures: a valid model and concept file, a folder for damaged copies, and the check that an input is rejected."""

import re
from pathlib import Path

import pytest

from tests.flows.bad_input.place import Place, Refuses, everything, one_line
from tests.helpers.command_line import Say
from tests.helpers.planted_lineages import planted, rows, write
from tests.helpers.tiny_models import byte_tokenizer


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    planted(4.0).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    write(folder / "planted.csv", rows(characters=30))
    return folder


@pytest.fixture
def place(home: Path, tmp_path: Path) -> Place:
    return Place(tmp_path, home / "model", home / "planted.csv")


@pytest.fixture
def refuses(place: Place, say: Say) -> Refuses:
    """refuses(argv, expected): exit code 2, one error line that matches, and no files left behind."""

    def check(argv: list[str], expected: str) -> None:
        before = everything(place.folder)
        code, out, err = say(*argv)
        line = one_line(err)
        assert re.search(expected, line), line
        assert code == 2
        assert out == ""
        assert everything(place.folder) == before, "something was left behind"

    return check
