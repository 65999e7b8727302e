"""Shared training runs and concept files; no test changes them."""

from pathlib import Path

import pytest

from ontogeny.data.concept import Concept
from tests.helpers.planted_lineages import RISE, SPOKEN, rows, save_run, write

FEW = {1: 0.0, 2: 4.0, 3: 8.0}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_run(home / "rise", RISE, answers=SPOKEN)
    save_run(home / "few", FEW)
    write(home / "planted.csv", rows(answers=True))
    write(home / "small.csv", rows(characters=36))
    write(home / "others.jsonl", rows(characters=44)[8:])
    return home


@pytest.fixture
def small(home: Path) -> Concept:
    return Concept.from_file(home / "small.csv")


@pytest.fixture
def others(home: Path) -> Concept:
    return Concept.from_file(home / "others.jsonl")
