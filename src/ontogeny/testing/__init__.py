"""Contracts of plug-ins as public functions, for plug-ins of other packages: `check_probe("margin")`.

Each contract is a tuple of clauses, functions named by what must hold, and a function that runs them all. The tests of this package
call the same functions. For pytest's messages, call `pytest.register_assert_rewrite("ontogeny.testing")` in a conftest.py.
"""

from ontogeny.testing.architectures import ARCHITECTURE_CLAUSES, check_architecture
from ontogeny.testing.concepts import broken_concept_clauses, check_concept
from ontogeny.testing.metrics import METRIC_CLAUSES, check_metrics
from ontogeny.testing.probes import PROBE_CLAUSES, check_probe
from ontogeny.testing.steering_methods import STEERING_METHOD_CLAUSES, check_steering_method
from ontogeny.testing.studies import STUDY_CLAUSES, check_study
from ontogeny.testing.suites import SUITE_CLAUSES, check_suite
from ontogeny.testing.views import VIEW_CLAUSES, check_view
from ontogeny.testing.worlds import ARRAY_WORLD_CLAUSES, LANGUAGE_CLAUSES, check_world

__all__ = [
    "ARCHITECTURE_CLAUSES",
    "ARRAY_WORLD_CLAUSES",
    "LANGUAGE_CLAUSES",
    "METRIC_CLAUSES",
    "PROBE_CLAUSES",
    "STEERING_METHOD_CLAUSES",
    "STUDY_CLAUSES",
    "SUITE_CLAUSES",
    "VIEW_CLAUSES",
    "broken_concept_clauses",
    "check_architecture",
    "check_concept",
    "check_metrics",
    "check_probe",
    "check_steering_method",
    "check_study",
    "check_suite",
    "check_view",
    "check_world",
]
