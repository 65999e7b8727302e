"""Compare: studies over the stages of one lineage."""

__all__ = ["compare", "inputs", "preflight", "rows", "stages"]
