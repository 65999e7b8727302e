"""Attribution of a behaviour to the stages of training: how would it have changed without a stage's updates (arXiv:2506.00175)?"""

__all__ = [
    "attribute",
    "baselines",
    "behaviours",
    "checkpoint_tiers",
    "comparison",
    "cost",
    "loss_derivatives",
    "metasmoothness",
    "moments",
    "optimizer_steps",
    "path",
    "plan",
    "recorded_runs",
    "recorded_tiers",
    "retraining",
    "rows",
    "segments",
    "stage_data",
    "stage_study",
]
