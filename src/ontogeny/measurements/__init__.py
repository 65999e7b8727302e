"""Measurements of one concept at one checkpoint, as records."""

__all__ = [
    "behaviour",
    "controls",
    "dependence",
    "design",
    "measure",
    "robustness",
    "rows",
    "scores",
    "settings",
    "surface_baselines",
]
