"""Instruments for a base model and its fine-tuned version: weight differences, their subspaces and nulls, clusters, Jacobian norms."""

__all__ = ["cluster_scores", "jacobian_norm", "null_changes", "subspaces", "weight_differences"]
