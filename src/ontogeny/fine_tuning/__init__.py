"""Instruments for a base model and its fine-tuned version: weight differences, their subspaces and nulls, clusters, exchanged MLPs."""

__all__ = [
    "behaviour_rows",
    "cluster_scores",
    "jacobian_norm",
    "matrix_rows",
    "mlp_patching",
    "null_changes",
    "requests",
    "settings",
    "subspaces",
    "weight_differences",
]
