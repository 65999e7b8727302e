"""Transfer: probes and vectors of one checkpoint tried on another."""

__all__ = ["cross_model", "estimate", "measure", "plan", "rows", "sources", "summary", "transfer"]
