"""Activations: batch texts and read all sites in one forward pass."""

__all__ = [
    "activations",
    "batching",
    "cache",
    "capture",
    "first_block_memo",
    "parity",
    "prefix_sharing",
    "sequence_packing",
    "workload",
]
