"""Audit: check the checkpoints of a lineage before they are measured."""

__all__ = ["audit", "checks", "metadata", "weight_norms"]
