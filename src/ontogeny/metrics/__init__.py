"""Metrics: numbers about scores and activations, one file a family; each states its range, its invariances and its source.

A plug-in is one file with plain functions and `metrics: tuple[Metric, ...]`, which says what the contract test may check.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

MetricInputs = Literal[
    "scores, labels", "scores, classes", "scores, numbers", "variables", "activations", "directions", "subspaces"
]
"""What its function is given: scores and targets, two sets of variables over the same examples, activations [site, example, d],
two directions [d], two subspaces [d, k]."""


@dataclass(frozen=True)
class Metric:
    """One metric and what it promises."""

    name: str
    function: Callable[..., Any]
    takes: MetricInputs
    low: float | None
    """Least value it can take; None = unbounded, or depends on the input."""
    high: float | None
    invariances: frozenset[str]
    """What changes nothing: `permutation` of the examples, an increasing `monotone` map, an `affine` map or a `positive_scale` of
    the scores, a common `shift` of the scores of all classes, a `rotation`, `translation` or `scale` of the activations."""
    reference: str
    """The independent implementation or formula that a test compares it with."""
