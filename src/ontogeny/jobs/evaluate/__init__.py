"""Evaluate: does a steering vector work, compared with its nulls and costs?"""

__all__ = [
    "contrast_items",
    "evaluate",
    "grid_search",
    "margins",
    "measure",
    "nulls",
    "plan",
    "promote_suppress",
    "rows",
    "steering_vectors",
    "text_scorers",
    "verdicts",
]
