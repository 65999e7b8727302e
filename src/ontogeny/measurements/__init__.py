"""Measurements of one concept at one checkpoint, as records."""

__all__ = [
    "answer_ablation",
    "behaviour",
    "controls",
    "cross_fitted_scores",
    "dependence",
    "design",
    "fitted_probe",
    "fragility",
    "held_out_probe",
    "measure",
    "refit_null",
    "robustness",
    "rows",
    "scores",
    "settings",
    "surface_baselines",
    "token_scores",
    "training_statistics",
]
