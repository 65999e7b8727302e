"""Evaluate: does a steering vector work, compared with its nulls and costs?"""

__all__ = ["evaluate", "grid_search", "margins", "measure", "nulls", "plan", "rows", "steering_vectors", "verdicts"]
