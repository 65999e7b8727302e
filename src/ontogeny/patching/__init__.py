"""Activation patching and attribution patching of one model, and the ablation of sets of heads and neurons."""

__all__ = ["activation_patching", "attribution_patching", "head_sets", "kv_cache", "noise", "unit_sets"]
