"""Every metric in the folder meets the contract in `ontogeny.testing`."""

from dataclasses import replace

import pytest

from ontogeny import plugins
from ontogeny.metrics import Metric
from ontogeny.testing import METRIC_CLAUSES
from ontogeny.testing.metrics import keeps_its_declared_invariances, stays_in_its_range

METRICS = [
    metric for name in plugins.list_plugins("metrics") for metric in plugins.load_plugin("metrics", name).metrics
]


def test_folder_has_the_known_metrics() -> None:
    names = [metric.name for metric in METRICS]
    assert {
        "auroc",
        "accuracy",
        "r2",
        "hsic",
        "nhsic",
        "participation_ratio",
        "cosine",
        "nats_bound",
        "expected_calibration_error",
    } <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("clause", METRIC_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metric_meets_the_contract(metric: Metric, clause: object) -> None:
    assert callable(clause)
    clause(metric)


def test_a_wrong_range_and_a_wrong_invariance_are_detected() -> None:
    (auroc,) = (metric for metric in METRICS if metric.name == "auroc")
    with pytest.raises(AssertionError):
        stays_in_its_range(replace(auroc, high=0.6))
    with pytest.raises(AssertionError, match="affine"):
        keeps_its_declared_invariances(replace(auroc, invariances=frozenset({"affine"})))
