"""Hugging Face models under standard names: loading, sites, hooks, weights."""

__all__ = [
    "hooks",
    "loading",
    "model",
    "multi_gpu",
    "onednn",
    "reusable",
    "size",
    "validation",
    "vision",
    "weight_swap",
]
