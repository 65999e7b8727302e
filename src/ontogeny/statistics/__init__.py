"""Splits, intervals, nulls and the steps at which things happen: tensors in, tensors out, no model and no disk."""

__all__ = [
    "bootstrap",
    "change_points",
    "control_tasks",
    "emergence",
    "fdr",
    "nulls",
    "order_test",
    "paired_flips",
    "permutation",
    "splits",
    "unique",
]
