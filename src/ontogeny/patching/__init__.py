"""Activation patching and attribution patching of one model, prompt pairs for it, and the ablation of sets of heads and neurons."""

__all__ = [
    "activation_patching",
    "attribution_patching",
    "head_sets",
    "kv_cache",
    "map_rows",
    "map_statistics",
    "noise",
    "pair_mining",
    "patch_maps",
    "prompt_pairs",
    "unit_sets",
]
