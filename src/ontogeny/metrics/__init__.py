"""Metrics of scores and activations, one file per family; each states its range, its invariances and its source.

To add a metric, write one file in this folder with plain functions and `metrics: tuple[Metric, ...]`. A `Metric` declares the range
and the invariances that `tests/contracts/test_metrics.py` checks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Metric", "MetricInputs"]

MetricInputs = Literal[
    "scores, labels",
    "scores, classes",
    "scores, numbers",
    "scores, pairs",
    "confidences, correct",
    "variables",
    "activations",
    "directions",
    "subspaces",
]
"""Arguments of a metric: scores and targets, scores of pairs [site, entity, property] and which pairs occur, confidences and whether each
answer is correct, two sets of variables over the same examples, activations [site, example, d], two directions [d], two subspaces [d, k].
"""


@dataclass(frozen=True)
class Metric:
    """A metric with its declared range and invariances."""

    name: str
    function: Callable[..., Any]
    takes: MetricInputs
    low: float | None
    """Lowest possible value; None if unbounded or dependent on the input."""
    high: float | None
    invariances: frozenset[str]
    """Transformations that do not change it: `permutation` of the examples; an increasing `monotone` map, an `affine` map or a
    `positive_scale` of the scores; a common `shift` of the scores of all classes; `rotation`, `translation`, `scale` of activations."""
    reference: str
    """Independent implementation or formula that a test compares it with."""
