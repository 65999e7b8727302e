"""Compare: studies over the stages of one lineage."""

__all__ = ["compare", "estimate", "inputs", "plan", "preflight", "stages"]
