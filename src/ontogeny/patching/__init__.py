"""Activation patching and attribution patching of one model."""

__all__ = ["activation_patching", "attribution_patching", "kv_cache", "noise"]
