"""Hugging Face models under standard names: loading, sites, hooks and weights."""

__all__ = [
    "adapters",
    "attention_patterns",
    "forward",
    "hooks",
    "identity",
    "kv_cache",
    "loading",
    "model",
    "multi_gpu",
    "onednn",
    "reusable",
    "shape",
    "shard_reader",
    "size",
    "stored_tensors",
    "validation",
    "vision",
    "weight_swap",
]
