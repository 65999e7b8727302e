"""Activations: batch texts and read all sites in one forward pass."""

__all__ = [
    "activations",
    "attention_geometry",
    "attention_mass",
    "attention_vectors",
    "batching",
    "cache",
    "capture",
    "first_block_memo",
    "head_layouts",
    "parity",
    "patch_labels",
    "prefix_sharing",
    "sequence_packing",
    "target_heads",
    "workload",
]
