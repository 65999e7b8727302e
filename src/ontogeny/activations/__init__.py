"""Reading activations: texts into batches, one forward pass, all sites at once."""

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
