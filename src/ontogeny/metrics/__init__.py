"""Metrics: numbers about scores and activations, one file a family; each states its range, its invariances and its source.

A plug-in is one file with plain functions and `metrics: tuple[Metric, ...]`, which says what the contract test may check.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One metric and what it promises."""

    name: str
    function: Callable[..., Any]
    low: float | None
    """Least value it can take; None = unbounded, or depends on the input."""
    high: float | None
    invariances: frozenset[str]
    """What may be done to the input without a change: `permutation` of examples (of labels alike), `monotone` maps, `affine`
    maps or `positive_scale` of scores, `rotation`, `shift` or `scale` of activations."""
    reference: str | None = None
    """An independent implementation it agrees with."""
