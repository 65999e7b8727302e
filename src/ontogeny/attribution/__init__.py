"""Attribution of a behaviour to the stages of training: how would it have changed without a stage's updates (arXiv:2506.00175)?"""

__all__ = [
    "attribute",
    "baselines",
    "behaviours",
    "checkpoint_tiers",
    "loss_derivatives",
    "metasmoothness",
    "optimizer_steps",
    "path",
    "recorded_tiers",
    "retraining",
]
