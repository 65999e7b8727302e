"""Every world in the folder meets the contract in `ontogeny.testing`."""

import pytest

from ontogeny import plugins
from ontogeny.testing import ARRAY_WORLD_CLAUSES, LANGUAGE_CLAUSES
from ontogeny.testing.worlds import is_language

NAMES = plugins.list_plugins("worlds")
CASES = [
    pytest.param(name, clause, id=f"{name}-{clause.__name__}")
    for name in NAMES
    for clause in (LANGUAGE_CLAUSES if is_language(name) else ARRAY_WORLD_CLAUSES)
]


def test_languages_and_arrays_are_covered() -> None:
    languages = {name for name in NAMES if is_language(name)}
    assert {"hearsay", "grammar"} <= languages
    assert {"low_rank", "corners"} <= set(NAMES) - languages


@pytest.mark.parametrize(("name", "clause"), CASES)
def test_world_meets_the_contract(name: str, clause: object) -> None:
    assert callable(clause)
    clause(name)
