"""Every steering method in the folder meets the contract in `ontogeny.testing`."""

import pytest

from ontogeny import plugins
from ontogeny.models.model import load_model
from ontogeny.testing import STEERING_METHOD_CLAUSES
from ontogeny.testing.steering_methods import gives_edits_that_fit_a_model

METHODS = plugins.list_plugins("steering/methods")


def test_methods_are_registered() -> None:
    assert {"ablate", "caa", "iti", "tracing_vector"} <= set(METHODS)


@pytest.mark.parametrize("clause", STEERING_METHOD_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("name", METHODS)
def test_steering_method_meets_the_contract(name: str, clause: object) -> None:
    assert callable(clause)
    clause(name)


@pytest.mark.parametrize("name", METHODS)
def test_edits_fit_a_model(name: str, tiny) -> None:
    gives_edits_that_fit_a_model(name, load_model(tiny("gpt_neox")))
