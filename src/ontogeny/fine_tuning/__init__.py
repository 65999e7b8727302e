"""Instruments for a base model and its fine-tuned version: weight differences, their subspaces and nulls, clusters, exchanged MLPs."""

__all__ = ["cluster_scores", "jacobian_norm", "mlp_patching", "null_changes", "subspaces", "weight_differences"]
