"""Studies: questions about the stages of a lineage, one plug-in package each."""

__all__ = ["confidence", "knowledge", "refusal", "truthfulness"]
