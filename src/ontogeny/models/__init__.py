"""Hugging Face models under standard names: loading, sites, hooks and weights."""

__all__ = [
    "forward",
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
