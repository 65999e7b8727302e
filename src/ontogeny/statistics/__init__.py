"""Splits, intervals, nulls and the steps at which things happen: tensors in, tensors out, no model and no disk."""

__all__ = [
    "attainable",
    "bootstrap",
    "change_points",
    "control_tasks",
    "correlation",
    "cross_fitting",
    "emergence",
    "fdr",
    "holm",
    "mine",
    "nulls",
    "order_test",
    "paired_flips",
    "permutation",
    "platt",
    "splits",
    "unique",
]
