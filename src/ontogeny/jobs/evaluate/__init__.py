"""Evaluate: does a steering vector work, compared with its nulls and costs?"""

__all__ = [
    "evaluate",
    "grid_search",
    "margins",
    "measure",
    "nulls",
    "plan",
    "removal",
    "rows",
    "share_trends",
    "siblings",
    "steering_vectors",
    "verdicts",
]
