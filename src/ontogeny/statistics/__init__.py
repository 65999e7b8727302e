"""Splits, intervals, nulls and the steps at which things happen: tensors in, tensors out, no model and no disk."""

__all__ = [
    "attainable",
    "bootstrap",
    "change_points",
    "control_tasks",
    "correlation",
    "cross_fitting",
    "curve_collapse",
    "emergence",
    "fdr",
    "holm",
    "mine",
    "nulls",
    "order_test",
    "paired_flips",
    "percolation",
    "permutation",
    "platt",
    "power_laws",
    "splits",
    "unique",
]
